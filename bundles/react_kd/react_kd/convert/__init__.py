"""Converters from public and hospital layouts to the bundle's datalist."""
