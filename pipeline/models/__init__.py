"""Networks: what ships, what only training has, and what each costs."""
