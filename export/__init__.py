"""From a stripped segmentor to engines whose every claim is verified."""
