"""What `contrail serve` costs, and what it withstands."""
