"""GeoJSON and shapefiles over images: in pixels, or in map coordinates over GeoTIFF."""
