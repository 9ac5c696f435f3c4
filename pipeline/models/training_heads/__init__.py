"""What only training has: projection and auxiliary heads, the trainee around a segmentor, and its stripping."""
