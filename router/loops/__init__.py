"""What runs by itself: look, report an event, sleep."""
