"""Where Litestar lives: routes, documentation, and the edge where bytes become calls."""
