"""What all stages found, put together, shown, compared and judged."""
