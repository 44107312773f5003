"""Published models, put together from the parts of this package."""
