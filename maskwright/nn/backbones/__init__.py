"""Networks that make maps of an image: ours, a file each, and any of timm's behind `Backbone`."""
