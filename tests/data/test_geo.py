"""GeoJSON, shapefiles and GeoPackages: pixels, map coordinates, projections, borders of images."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_objects import full_mask
from PIL import Image

from maskwright.data import Dataset, find_splits, open_dataset, write_dataset

LEFT, TOP, STEP = 500_000.0, 5_400_000.0, 0.5  # of a raster in UTM 32N, half a metre a pixel
UTM = "EPSG:32632"


def feature(rings: list[Any], name: str | None = "tree", **more: Any) -> dict[str, Any]:
    kind = {"type": "Polygon", "coordinates": rings}
    properties = {"class": name} if name else {}
    return {"type": "Feature", "geometry": kind, "properties": properties | more}


def collection(*features: dict[str, Any], crs: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "FeatureCollection", "features": list(features)}
    if crs is not None:
        found["crs"] = {"type": "name", "properties": {"name": crs}}
    return found


def ring(x1: float, y1: float, x2: float, y2: float) -> list[list[float]]:
    return [[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]]


def on_map(x1: float, y1: float, x2: float, y2: float) -> list[list[float]]:
    """A rectangle in pixels of the first raster, on the map: y goes up there."""
    return ring(LEFT + STEP * x1, TOP - STEP * y1, LEFT + STEP * x2, TOP - STEP * y2)


def raster(file: Path, columns: float = 0) -> Path:
    """A GeoTIFF of 40 x 30 pixels (width x height), so many pixels east of the first."""
    rasterio = pytest.importorskip("rasterio", reason="the extra geo")
    file.parent.mkdir(parents=True, exist_ok=True)
    place = rasterio.transform.from_origin(LEFT + STEP * columns, TOP, STEP, STEP)
    options = {"driver": "GTiff", "width": 40, "height": 30, "count": 3, "dtype": "uint8"}
    with rasterio.open(file, "w", crs=UTM, transform=place, **options) as out:
        out.write(np.random.default_rng(0).integers(0, 256, (3, 30, 40), np.uint8))
    return file


def put(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def picture(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30)).save(file)


def masks(data: Dataset, index: int = 0) -> list[np.ndarray]:
    return [full_mask(data, index, k) for k in range(len(data[index].labels))]


def square(x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    mask = np.zeros((30, 40), bool)
    mask[y1:y2, x1:x2] = True
    return mask


def test_cells_as_qupath_has_them(tmp_path: Path) -> None:
    """A class of several names, a nucleus beside the outline, an outline that nobody classified."""
    picture(tmp_path / "a.png")
    cell = feature([ring(1, 1, 9, 9)], None, classification={"names": ["Tumor", "Positive"]})
    bare = feature([ring(20, 1, 29, 9)], None, objectType="annotation")
    put(tmp_path / "a.geojson", [cell | {"nucleusGeometry": cell["geometry"]}, bare])
    data = open_dataset(tmp_path)
    assert data.names == ["Tumor: Positive", "object"] and data[0].labels.tolist() == [0, 1]
    assert [(one.kind, one.action) for one in data.faults] == [("feature without a class", "kept")]
    assert data.unread == {"the property 'nucleusGeometry' of a feature": 1}


def test_pixels_as_qupath_has_them(tmp_path: Path) -> None:
    """A list of features with a classification, one of two parts, one with a hole."""
    picture(tmp_path / "train/a.png")
    picture(tmp_path / "val/b.png")
    several = feature([], None, classification={"name": "Tumor", "color": [200, 0, 0]})
    several["geometry"] = {
        "type": "MultiPolygon",
        "coordinates": [[ring(1, 1, 4, 4)], [ring(10, 10, 14, 12)]],
    }
    hole = feature([ring(20, 5, 35, 20), ring(25, 8, 30, 15)], "Stroma", iscrowd=1)
    point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 1]}}
    put(tmp_path / "train/a.geojson", [several, hole, point | {"properties": {}}])
    put(tmp_path / "val/b.geojson", collection())
    put(tmp_path / "classes.txt", 0)
    (tmp_path / "classes.txt").write_text("Stroma\nTumor\n")
    assert set(find_splits(tmp_path)) == {"train", "val"}
    data = open_dataset(tmp_path)
    assert data.names == ["Stroma", "Tumor"] and data.format == "geo"
    assert data[0].labels.tolist() == [1, 0] and data[0].crowd.tolist() == [False, True]
    expected = [square(1, 1, 4, 4) | square(10, 10, 14, 12)]
    expected.append(square(20, 5, 35, 20) & ~square(25, 8, 30, 15))
    for found, mask in zip(masks(data), expected, strict=True):
        np.testing.assert_array_equal(found, mask)
    assert [fault.kind for fault in data.faults] == ["shape without area"]
    assert len(open_dataset(tmp_path, "val")[0].labels) == 0


def test_one_file_over_several_rasters(tmp_path: Path) -> None:
    """What two images share goes to both, cut at their borders; holes stay."""
    raster(tmp_path / "images/a.tif")
    raster(tmp_path / "images/b.tif", 40)
    content = collection(
        feature([on_map(2, 3, 12, 8)]),
        feature([on_map(30, 10, 50, 20), on_map(32, 12, 36, 14)], "roof"),
        feature([on_map(100, 3, 120, 8)]),
        crs=UTM,
    )
    put(tmp_path / "labels.geojson", content)
    data = open_dataset(tmp_path)
    assert data.names == ["roof", "tree"] and len(data) == 2 and not data.faults
    a, b = masks(data, 0), masks(data, 1)
    np.testing.assert_array_equal(a[0], square(2, 3, 12, 8))
    np.testing.assert_array_equal(a[1], square(30, 10, 40, 20) & ~square(32, 12, 36, 14))
    assert len(a) == 2 and len(b) == 1
    np.testing.assert_array_equal(b[0], square(0, 10, 10, 20))
    assert data.image(0).shape == (30, 40, 3)


def test_degrees_become_pixels(tmp_path: Path) -> None:
    """GeoJSON without a projection is in degrees; rasterio draws what is expected."""
    rasterio = pytest.importorskip("rasterio", reason="the extra geo")
    from rasterio import features, warp

    file = raster(tmp_path / "images/a.tif")
    outline = [[x, y] for x, y in on_map(5, 6, 33, 24)]
    outline[1:1] = [[LEFT + STEP * 20, TOP - STEP * 2]]
    planar = {"type": "Polygon", "coordinates": [outline]}
    geometry = warp.transform_geom(UTM, "EPSG:4326", planar)
    put(tmp_path / "a.geojson", collection(feature([]) | {"geometry": geometry}))
    (found,) = masks(open_dataset(tmp_path))
    with rasterio.open(file) as source:
        expected = features.rasterize([planar], (30, 40), transform=source.transform) > 0
    assert (found != expected).sum() <= 6  # rules differ for centres on an edge
    metres = collection(feature([on_map(2, 3, 12, 8)]))
    put(tmp_path / "a.geojson", metres)
    with pytest.raises(ValueError, match=r"names no projection, and its coordinates.*no degrees"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("suffix", [".shp", ".gpkg"])
def test_shapefiles(suffix: str, tmp_path: Path) -> None:
    pyogrio = pytest.importorskip("pyogrio", reason="the extra geo")
    shapely = pytest.importorskip("shapely", reason="the extra geo")
    raster(tmp_path / "train/a.tif")
    raster(tmp_path / "val/b.tif", 40)
    for split, corners in (("train", (2, 3, 12, 8)), ("val", (42, 3, 52, 8))):
        shape = shapely.from_geojson(json.dumps(feature([on_map(*corners)])["geometry"]))
        pyogrio.raw.write(
            tmp_path / f"{split}/labels{suffix}",
            np.array([shapely.to_wkb(shape)], dtype=object),
            [np.array(["oak"], dtype=object)],
            ["species"],
            geometry_type="Polygon",
            crs=UTM,
            driver={".shp": "ESRI Shapefile", ".gpkg": "GPKG"}[suffix],
        )
    for split in ("train", "val"):
        data = open_dataset(tmp_path, split)
        assert data.names == ["oak"] and not data.faults
        np.testing.assert_array_equal(masks(data)[0], square(2, 3, 12, 8))
    (tmp_path / f"train/labels{suffix}").write_bytes(b"x" * 50)
    with pytest.raises(ValueError, match=rf"labels\{suffix} cannot be read"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("format", ["geo", "shapefile"])
def test_predictions_go_out_in_map_coordinates(format: str, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason="the extra geo")
    file = raster(tmp_path / "in/a.tif")
    entries: list[dict[str, Any]] = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 3, 10, 5]},
        {"id": 2, "image_id": 1, "category_id": 1, "segmentation": [[20, 3, 30, 3, 30, 8, 20, 8]]},
    ]
    images = [{"id": 1, "file_name": "a.tif", "height": 30, "width": 40}]
    categories = [{"id": 1, "name": "tree"}]
    content = {"images": images, "annotations": entries[1:], "categories": categories}
    data = open_dataset(put(tmp_path / "in/train.json", content))
    write_dataset(data, tmp_path / "out", format)
    if format == "geo":
        written = json.loads((tmp_path / "out/train/a.geojson").read_text())
        assert written["crs"]["properties"]["name"] == UTM
        (outline,) = written["features"][0]["geometry"]["coordinates"]
    else:
        pyogrio, shapely = pytest.importorskip("pyogrio.raw"), pytest.importorskip("shapely")
        meta, _, shapes, fields = pyogrio.read(tmp_path / "out/train/a.shp")
        assert meta["crs"] == UTM and fields[list(meta["fields"]).index("class")][0] == "tree"
        outline = [list(p) for p in shapely.from_wkb(shapes[0]).exterior.coords]
    with rasterio.open(file) as source:
        places = [list(source.transform * tuple(p)) for p in ((20, 3), (30, 3), (30, 8), (20, 8))]
    assert len(outline) == 5 and sorted(outline[:-1]) == sorted(places)
    again = open_dataset(tmp_path / "out")
    assert again.format == format
    found = again.polygons(0, 0)
    assert found is not None
    np.testing.assert_allclose(np.sort(found[0], 0), np.sort(data.polygons(0, 0)[0], 0))  # type: ignore[index]
    content["annotations"] = entries[:1]
    data = open_dataset(put(tmp_path / "in/train.json", content))
    write_dataset(data, tmp_path / "boxes", format)
    again = open_dataset(tmp_path / "boxes")
    assert not again.has_masks
    np.testing.assert_allclose(again.annotated_boxes(0), [[2, 3, 12, 8]], atol=1e-4)


def test_faults(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    broken = feature([[[1, 1], [2, "x"], [3, 3]]])
    put(tmp_path / "a.geojson", collection(broken, feature([ring(1, 1, 9, 9)])))
    (fault,) = open_dataset(tmp_path).faults
    assert (fault.kind, fault.action) == ("bad points", "ignored")
    assert "a.geojson, features[0]" in fault.message
    raster(tmp_path / "b/images/a.tif")
    for content, says in (
        (collection(feature([on_map(900, 3, 912, 8)]), crs=UTM), "none of 1 features lies within"),
        (collection(feature([on_map(2, 3, 12, 8)]), crs="EPSG:x"), "no projection is called"),
        (collection(broken, crs=UTM), r"features\[0\].*mend or delete it"),
        ({"type": "F", "features": {}, "crs": 1}, "has no list 'features'"),
    ):
        put(tmp_path / "b/labels.geojson", content)
        with pytest.raises(ValueError, match=says):
            open_dataset(tmp_path / "b")
    Image.new("RGB", (40, 30)).save(tmp_path / "b/images/a.tif")
    put(tmp_path / "b/labels.geojson", collection(feature([ring(1, 1, 9, 9)])))
    with pytest.raises(ValueError, match="no GeoTIFF beside it has a place on the map"):
        open_dataset(tmp_path / "b")


def test_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raster(tmp_path / "a.tif")
    put(tmp_path / "a.geojson", collection(feature([on_map(2, 3, 12, 8)]), crs=UTM))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(ValueError, match=r"pip install 'maskwright\[geo\]'"):
        open_dataset(tmp_path)


def test_classes_of_another_property(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    features = [
        feature([ring(1, 1, 9, 9)], None, Art="oak", height=3.5),
        feature([ring(11, 1, 19, 9)], None, Art="elm", height=7),
    ]
    put(tmp_path / "a.geojson", collection(*features))
    data = open_dataset(tmp_path)
    assert data.names == ["object"]
    (fault,) = data.faults
    assert "'oak', 'elm'" in fault.message and "format=geo:PROPERTY" in fault.message
    data = open_dataset(tmp_path, format="geo:art")
    assert data.names == ["elm", "oak"] and not data.faults
    assert list(data.unread) == ["the property 'height' of a feature"]
    with pytest.raises(ValueError, match=r"no feature has a class in the property 'x'.*Art"):
        open_dataset(tmp_path, format="geo:x")
    with pytest.raises(ValueError, match="only format=geo:PROPERTY, "):
        open_dataset(tmp_path, format="coco:x")
