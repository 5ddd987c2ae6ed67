"""The admin and the example project's dashboard in a real browser."""
