"""Running the handlers of an application."""
