"""Back ends of the port layer; base.py is what they promise."""
