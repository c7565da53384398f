"""Pages for a browser: drawings of networks, kinks and runs, and the templates around them."""
