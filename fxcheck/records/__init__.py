"""See architecture notes in the README: the room `records`."""
