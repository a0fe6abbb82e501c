"""A folder of images and one of label maps, read as a data set: what all layouts of maps become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...building.builder import Builder
from ...building.mapped import MapBuilder
from ...records import Dataset
from ..folders import Tree, read_lines
from ..source import BaseSource, ReadOptions, Source, passed_over
from .classes import ClassTable, find_table
from .compare import compare_labelme, compare_polygons
from .matching import Pairs, Rule, listed_names, pair_files
from .settle import settle, table_from_names, table_from_values

FORMAT = "maps"


@dataclass(frozen=True)
class MapSource(BaseSource):
    """Where one split lies.

    Attributes:
        maps: folder of its label maps; where an image has none in it, the next one is looked into.
        images: folder of its images; may be that of the maps.
        beside: folders in which a file of classes may lie, the nearest first.
        table: the classes where no file says others; None: the numbers that are found.
        rule: how the names of label maps are made; None: found in the names.
        listing: list of the images; None: all.
        without: lists whose images are left out.
        whole: the folder of maps has none but those of this split.
        format: `Dataset.format`.
        polygons: annotations of the same images as polygons, which must agree.
    """

    maps: tuple[Path, ...]
    images: Path
    beside: tuple[Path, ...] = ()
    table: ClassTable | None = None
    rule: Rule | None = None
    listing: Path | None = None
    without: tuple[Path, ...] = ()
    whole: bool = True
    format: str = FORMAT
    polygons: Source | None = None
    tree: Tree = field(default_factory=Tree, compare=False)

    @property
    def annotations(self) -> Path:
        """What faults and errors name: the list, or the folder of the label maps."""
        return self.listing or self.maps[0]

    def read(self, split: str, names: Sequence[str] | None, options: ReadOptions) -> Dataset:
        """Return the data set; see `discover.open_dataset`."""
        pairs = self.pairs()
        builder = MapBuilder(self.annotations, split, self.format)
        self.tell(builder, pairs)
        maps = [file for _, file in pairs.files]
        table = find_table(self.tree, self.beside) or self.table
        declared = table is not None
        if table is None and names is not None:
            table = self._of_known(names)
        if table is None:
            table, said = table_from_values(maps, options.ignore, self.maps[0])
        else:
            table, said = settle(table, maps)
        for kind, message, action in said:
            builder.fault(kind, message, action)
        table = table.ignoring(options.ignore)
        known = list(table.names if names is None else names)
        dataset = builder.build(pairs.files, known, table.encoding(known))
        compare_labelme(dataset)
        if self.polygons is not None:
            compare_polygons(dataset, self.polygons, declared=declared)
        return dataset

    def tell(self, builder: Builder | MapBuilder, pairs: Pairs) -> None:
        """Note the files that have no partner, and those that are not used."""
        for kind, files in (
            ("image without a label map", [str(file) for file in pairs.lonely_images]),
            ("label map without an image", [str(f) for f in pairs.lonely_maps if self.whole]),
            ("missing image", [f"{name} in {self.images}" for name in pairs.missing]),
        ):
            if files:
                more = f" and {len(files) - 1} more" if len(files) > 1 else ""
                builder.fault(kind, f"{kind}: {files[0]}{more}")
        for file, why in pairs.passed:
            builder.faults.append(passed_over(file, why))

    def _of_known(self, names: Sequence[str]) -> ClassTable:
        """Return the table of names that numbers got in the training, where no file has any."""
        table = table_from_names(names, self.maps[0])
        if table is None:
            raise ValueError(
                f"nothing says which numbers in {self.maps[0]} are the classes {list(names)[:20]}: "
                "put the classes.txt of the training images beside the label maps"
            )
        return table

    def pairs(self) -> Pairs:
        """Return which label map belongs to which image.

        Raises:
            ValueError: if no name fits.
        """
        only = None
        if self.listing is not None:
            only = listed_names(read_lines(self.listing))
            for other in self.without:
                only -= listed_names(read_lines(other))
        pairs = Pairs()
        refusal: ValueError | None = None
        for folder in self.maps:
            try:
                more = pair_files(self.tree, self.images, folder, self.rule, only)
            except ValueError as error:
                refusal = refusal or error
                continue
            more.passed += pairs.passed
            more.missing += pairs.missing
            pairs = replace(more, files=sorted(pairs.files + more.files))
            only = {file.stem for file in more.lonely_images}
            if not only:
                break
        if refusal is not None and not pairs.files:
            where = f" ({self.listing})" if self.listing else ""
            raise ValueError(f"{refusal}{where}")
        return pairs
