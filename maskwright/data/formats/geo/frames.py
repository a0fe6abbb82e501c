"""Where an image lies on the map, and back: the affine transform and the projection of a GeoTIFF.

Needs rasterio (the extra `geo`) for images that have any; others are in pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TIFF = (".tif", ".tiff")
DEGREES = "OGC:CRS84"  # longitude and latitude, which GeoJSON has unless it says otherwise
Points = Callable[[np.ndarray], np.ndarray]  # (n, 2) to (n, 2)


def require_geo(file: Path, module: str) -> Any:
    """Return a module of the extra `geo`.

    Raises:
        ValueError: if it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise ValueError(
            f"{file} is read with {module.split('.')[0]}: pip install 'maskwright[geo]'"
        ) from None


@dataclass(frozen=True)
class MapFrame:
    """Where an image lies.

    Attributes:
        size: (height, width).
        matrix: (2, 3), from x and y in pixels to map coordinates.
        crs: the projection, as rasterio has it.
    """

    size: tuple[int, int]
    matrix: np.ndarray
    crs: Any

    def to_map(self, points: np.ndarray) -> np.ndarray:
        """Return pixels (n, 2) as map coordinates."""
        moved: np.ndarray = points @ self.matrix[:, :2].T + self.matrix[:, 2]
        return moved

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Return map coordinates (n, 2) as pixels."""
        found: np.ndarray = (points - self.matrix[:, 2]) @ np.linalg.inv(self.matrix[:, :2]).T
        return found


def frame_of(image: Path) -> MapFrame | None:
    """Return where an image lies; None for one that says nothing of it.

    Raises:
        ValueError: if it is a TIFF that cannot be read, or rasterio is not installed.
    """
    if image.suffix.lower() not in TIFF or not _has_keys(image):
        return None
    rasterio = require_geo(image, "rasterio")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a missing transform
            with rasterio.open(image) as raster:
                a, b, c, d, e, f = tuple(raster.transform)[:6]
                size, crs = (raster.height, raster.width), raster.crs
    except rasterio.errors.RasterioError as error:
        raise ValueError(f"{image} cannot be read as a GeoTIFF: {str(error)[:150]}") from None
    matrix = np.array([[a, b, c], [d, e, f]])
    if abs(np.linalg.det(matrix[:, :2])) == 0 or not np.isfinite(matrix).all():
        raise ValueError(f"{image} has a transform that maps nothing: {matrix.tolist()}")
    if crs is None:
        return None
    return MapFrame(size, matrix, crs)


def _has_keys(image: Path) -> bool:
    """Return whether a TIFF names a projection."""
    import tifffile

    try:
        with tifffile.TiffFile(image) as file:
            return "GeoKeyDirectoryTag" in file.pages.first.tags
    except (OSError, ValueError, RuntimeError, tifffile.TiffFileError):
        return False  # for its reader to refuse


def projection(file: Path, name: Any) -> Any:
    """Return a projection by its name.

    Raises:
        ValueError: if there is none so called.
    """
    rasterio = require_geo(file, "rasterio")
    crs = require_geo(file, "rasterio.crs")
    try:
        return crs.CRS.from_user_input(name)
    except (rasterio.errors.RasterioError, ValueError, TypeError) as error:
        raise ValueError(f"{file}: no projection is called {name!r} ({str(error)[:100]})") from None


def reprojected(file: Path, source: Any, target: Any) -> Points | None:
    """Return what takes points (n, 2) from one projection to another; None if they are the same."""
    if source == target:
        return None
    warp = require_geo(file, "rasterio.warp")

    def move(points: np.ndarray) -> np.ndarray:
        xs, ys = warp.transform(source, target, points[:, 0].tolist(), points[:, 1].tolist())
        return np.stack([xs, ys], 1)

    return move
