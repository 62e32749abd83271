"""bundle_name: segment bright objects in a volume; replace this line by the method and its paper."""
