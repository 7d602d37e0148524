"""A small shop in Django: a list, a product, a cart."""
