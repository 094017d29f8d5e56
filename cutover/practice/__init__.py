"""Practice: a cutover goes through everything but the moving, and says what was measured."""
