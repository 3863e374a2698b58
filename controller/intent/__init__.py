"""What an object asks for, whatever its kind."""
