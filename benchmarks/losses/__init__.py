"""What the losses cost beside their floors."""
