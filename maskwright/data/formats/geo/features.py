"""Features of a GeoJSON, read by hand, or of a shapefile or GeoPackage, read by pyogrio."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...building.objects import shown
from ..json_file import load_json
from .frames import DEGREES, require_geo

CLASS_FIELDS = ("class", "class_name", "label", "name", "category", "type", "species")
MEMBERS = ("type", "geometry", "properties", "id", "bbox")
VECTORS = (".shp", ".gpkg")
JSON = (".geojson", ".json")


@dataclass(frozen=True)
class Feature:
    """One feature.

    Attributes:
        geometry: a geometry of GeoJSON.
        properties: its fields.
        place: where it stands.
        field: the property that tells its class; "": one of `CLASS_FIELDS`.
    """

    geometry: Any
    properties: Mapping[str, Any]
    place: str
    field: str = ""

    @property
    def label(self) -> str | None:
        """The name of its class; None where no field tells it."""
        told = None if self.field else self.properties.get("classification")
        if isinstance(told, dict) and isinstance(told.get("name"), str):  # as QuPath has it
            return told["name"].strip() or None
        if isinstance(told, dict) and isinstance(told.get("names"), list):  # of derived classes
            return ": ".join(map(str, told["names"])).strip() or None
        fields = {str(key).casefold(): value for key, value in self.properties.items()}
        for name in (self.field.casefold(),) if self.field else CLASS_FIELDS:
            value = fields.get(name)
            if isinstance(value, float) and value.is_integer():
                value = int(value)
            if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
                return str(value).strip()
        return None


def read_features(file: Path, field: str = "") -> tuple[list[Feature], Any]:
    """Return the features of a file, and the name of its projection; None: it says none.

    Args:
        file: the file.
        field: see `Feature`.

    Raises:
        ValueError: if it cannot be read.
    """
    if file.suffix.lower() in VECTORS:
        return _with_pyogrio(file, field)
    content = load_json(file)
    listed = content if isinstance(content, list) else None  # as QuPath writes them, too
    if isinstance(content, dict):
        listed = [content] if content.get("type") == "Feature" else content.get("features")
    if not isinstance(listed, list):
        raise ValueError(f"{file} has no list 'features': it is no GeoJSON, or cut off")
    crs = content.get("crs") if isinstance(content, dict) else None
    told = crs.get("properties") if isinstance(crs, dict) else None
    name = told.get("name") if isinstance(told, dict) else None
    if crs is not None and not isinstance(name, str):
        raise ValueError(f"{file}: crs needs the name of a projection, got {shown(crs)}")
    return list(_features(listed, field)), name


def _features(listed: list[Any], field: str) -> Iterator[Feature]:
    for number, one in enumerate(listed):
        entry = one if isinstance(one, dict) else {}
        fields = entry.get("properties")
        properties = fields if isinstance(fields, dict) else {}
        properties |= {key: entry[key] for key in entry.keys() - MEMBERS}  # a nucleus of QuPath
        yield Feature(entry.get("geometry"), properties, f"features[{number}]", field)


def _with_pyogrio(file: Path, field: str) -> tuple[list[Feature], Any]:
    raw = require_geo(file, "pyogrio.raw")
    errors = require_geo(file, "pyogrio.errors")
    shapely = require_geo(file, "shapely")
    geometry = require_geo(file, "shapely.geometry")
    try:
        meta, _, shapes, fields = raw.read(file)
    except (errors.DataSourceError, errors.DataLayerError, errors.FeatureError) as error:
        raise ValueError(f"{file} cannot be read: {str(error)[:200]}") from None
    names = [str(name) for name in meta["fields"]]
    found = []
    for number, code in enumerate(shapes):
        own = {name: _plain(values[number]) for name, values in zip(names, fields, strict=True)}
        shape = None if code is None else geometry.mapping(shapely.from_wkb(code))
        found.append(Feature(shape, own, f"feature {number}", field))
    return found, meta.get("crs") or DEGREES


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
