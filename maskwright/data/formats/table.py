"""The one table of formats: how a data set looks, how it is found, read and written; what is not.

A new format is one file, which finds and reads and perhaps writes, and one row here. `discover`
tries the rows that are read from top to bottom, and its messages are made of the same
rows: what was seen, why it was not taken, what to do about it.
"""

from __future__ import annotations

from .annotators.createml import createml_file, find_createml, write_createml
from .annotators.datumaro import datumaro_file, find_datumaro
from .annotators.fiftyone import fiftyone_file, find_fiftyone
from .annotators.imglab import find_imglab, imglab_file
from .annotators.retinanet import find_retinanet, retinanet_file, write_retinanet
from .annotators.via import find_via, via_file, write_via
from .cifar import cifar_splits, find_cifar
from .class_folders import find_class_folders, write_class_folders
from .coco import find as coco
from .coco.panoptic import find_panoptic_objects, panoptic_objects_file
from .coco.write import write_coco
from .cvat.read import cvat_file, find_cvat
from .cvat.write import write_cvat
from .geo.read import SHAPEFILE, find_geo
from .geo.shapefile import write_shapefile
from .geo.write import write_geo
from .huggingface.labels import find_label_tables
from .huggingface.read import ORDERS, find_huggingface, huggingface_file
from .huggingface.write import write_huggingface
from .idx import find_idx, idx_splits
from .imagenet import find_imagenet
from .instances.find import declares_instances, find_instances
from .instances.write import write_instances
from .labelme.read import find_labelme, labelme_file
from .labelme.write import write_labelme
from .lost import BOXES, HELD, WORDS
from .maps.ade20k import find_ade20k
from .maps.camvid import find_camvid
from .maps.cityscapes import find_cityscapes
from .maps.coco_stuff import find_stuff
from .maps.layout import find_maps, with_polygons
from .maps.panoptic import find_panoptic, panoptic_file
from .maps.voc import find_voc_maps
from .maps.write import write_maps
from .rows import Find, Layout
from .sets.crowdhuman import crowdhuman_file, find_crowdhuman, write_crowdhuman
from .sets.dota import find_dota
from .sets.kitti import find_kitti, write_kitti
from .sets.open_images import find_open_images, open_images_file, write_open_images
from .sniff import (
    CAPTIONS,
    IMAGES_ONLY,
    MEND,
    MISNAMED,
    NAPARI,
    PANOPTIC,
    RESULTS,
)
from .studio.read import find_studio, studio_file
from .studio.write import write_studio
from .supervisely.read import find_supervisely
from .supervisely.write import write_supervisely
from .tables.keypoints import find_points, fits_points, point_splits
from .tables.labelled import csv_splits, find_csv, fits, write_csv
from .voc import source as voc
from .voc.write import write_voc
from .yolo.find import find_yolo
from .yolo.write import write_yolo


def _boxes_as(format: str) -> Find:
    """Return what finds tables of Hugging Face where the user says how their boxes are written."""
    return lambda look: (
        find_huggingface(look.tree, look.path, format) if look.format == format else {}
    )


REGIONS = frozenset(("crowds", "ignored"))
EXPORT = "export it from the labelling tool as COCO JSON or Pascal VOC"
TABLE = (
    Layout(
        "COCO JSON for each split",
        "annotations/train.json + annotations/val.json + images/ (or images/train/, images/val/)\n"
        "train.json + val.json + images/      annotations/instances_train2017.json + train2017/\n"
        "train/_annotations.coco.json + valid/_annotations.coco.json, beside the images",
        lambda look: coco.named_splits(look.coco),
        format="coco",
        write=write_coco,
        keeps=frozenset(WORDS),
        outlined=True,
    ),
    Layout(
        "one COCO JSON, divided by lists of images",
        "annotations.json + images/ + train.txt + val.txt",
        lambda look: coco.listed_splits(look.coco),
        format="coco",
    ),
    Layout(
        "one COCO JSON, divided by folders of images",
        "annotations.json + images/train/ + images/val/ (or train/ + val/)",
        lambda look: coco.folder_splits(look.coco),
        format="coco",
    ),
    Layout(
        "one COCO JSON",
        "annotations.json + images/ (a part is held out)",
        lambda look: coco.single(look.coco),
        format="coco",
    ),
    Layout(
        "CrowdHuman odgt",
        "annotation_train.odgt + annotation_val.odgt + Images/",
        lambda look: find_crowdhuman(look.tree, look.path),
        file=crowdhuman_file,
        format="crowdhuman",
        write=write_crowdhuman,
        keeps=BOXES | REGIONS,
    ),
    Layout(
        "KITTI labels",
        "training/label_2/*.txt + training/image_2/*.png; train/labels/ + train/images/ + val/...",
        lambda look: find_kitti(look.tree, look.path),
        format="kitti",
        write=write_kitti,
        keeps=BOXES | REGIONS,
    ),
    Layout(
        "Open Images CSV",
        "train-annotations-bbox.csv + validation-annotations-bbox.csv + train/ + validation/\n"
        "+ class-descriptions-boxable.csv + train-annotations-human-imagelabels-boxable.csv",
        lambda look: find_open_images(look.tree, look.path),
        file=open_images_file,
        format="openimages",
        write=write_open_images,
        keeps=BOXES | {"crowds", "checked"},
    ),
    Layout(
        "Pascal VOC with lists",
        "Annotations/*.xml + JPEGImages/ + ImageSets/Main/train.txt + .../val.txt (or train.txt +\n"
        "val.txt in ImageSets/ or at the top); labels/*.xml + images/; several such folders",
        lambda look: voc.listed(look.voc),
        format="voc",
        write=write_voc,
        keeps=HELD - {"corners", "overlaps", "keypoints", "nameless"},
    ),
    Layout(
        "Pascal VOC, a folder for each split",
        "train/*.xml + valid/*.xml beside the images\n"
        "Annotations/*.xml + images/train/ + images/val/",
        lambda look: voc.divided(look.voc),
        format="voc",
    ),
    Layout(
        "Pascal VOC",
        "Annotations/*.xml + JPEGImages/; *.xml beside the images",
        lambda look: voc.undivided(look.voc),
        format="voc",
    ),
    Layout(
        "YOLO",
        "data.yaml + train/images/ + train/labels/*.txt + valid/images/ + valid/labels/*.txt\n"
        "images/train/ + labels/train/*.txt + images/val/ + labels/val/*.txt + classes.txt",
        lambda look: find_yolo(look.tree, look.path),
        format="yolo",
        write=write_yolo,
        keeps=HELD - {"own boxes", "parts", *REGIONS, "masks beside keypoints"},
        outlined=True,
    ),
    Layout(
        "LabelMe JSON",
        "train/a.json + train/a.jpg + val/b.json + val/b.jpg; *.json beside the images",
        lambda look: find_labelme(look.tree, look.path),
        file=labelme_file,
        format="labelme",
        write=write_labelme,
        keeps=HELD - {"own boxes"},
        outlined=True,
        edited=True,
    ),
    Layout(
        "CVAT XML",
        "annotations.xml + images/ (images or frames); train.xml + val.xml + images/train/ + ...",
        lambda look: find_cvat(look.tree, look.path),
        file=cvat_file,
        format="cvat",
        write=write_cvat,
        keeps=HELD - {"own boxes"},
        outlined=True,
        edited=True,
    ),
    Layout(
        "Label Studio JSON",
        "project-1.json + images/; train.json + val.json + images/train/ + images/val/",
        lambda look: find_studio(look.tree, look.path),
        file=studio_file,
        format="labelstudio",
        write=write_studio,
        keeps=HELD - {"own boxes"},
        outlined=True,
        edited=True,
    ),
    Layout(
        "Supervisely JSON",
        "meta.json + ds/ann/a.jpg.json + ds/img/a.jpg; meta.json + train/ann/ + train/img/ + ...",
        lambda look: find_supervisely(look.tree, look.path),
        format="supervisely",
        write=write_supervisely,
        keeps=HELD - {"own boxes"},
        outlined=True,
        edited=True,
    ),
    Layout(
        "GeoJSON",
        "train/a.geojson + train/a.png, in pixels\n"
        "images/*.tif (GeoTIFF) + labels.geojson, in map coordinates",
        lambda look: find_geo(look.tree, look.path, look.format),
        format="geo",
        write=write_geo,
        keeps=HELD - {"own boxes", "keypoints"},
    ),
    Layout(
        "shapefiles",
        "train/a.shp + train/a.png; images/*.tif (GeoTIFF) + labels.shp (or .gpkg)",
        lambda look: find_geo(look.tree, look.path, look.format or SHAPEFILE),
        format=SHAPEFILE,
        write=write_shapefile,
        keeps=HELD - {"own boxes", "keypoints"},
    ),
    Layout(
        "DOTA labels",
        "train/images/*.png + train/labelTxt/*.txt; val/...",
        lambda look: find_dota(look.tree, look.path),
        format="dota",
    ),
    Layout(
        "VIA JSON",
        "via_region_data.json (or .csv) beside the images; train.json + val.json + images/",
        lambda look: find_via(look.tree, look.path),
        file=via_file,
        format="via",
        write=write_via,
        keeps=HELD - {"own boxes", "parts", "keypoints", "masks beside keypoints"},
        outlined=True,
    ),
    Layout(
        "CreateML JSON",
        "train/_annotations.createml.json + valid/..., beside the images",
        lambda look: find_createml(look.tree, look.path),
        file=createml_file,
        format="createml",
        write=write_createml,
        keeps=BOXES,
    ),
    Layout(
        "Datumaro JSON",
        "annotations/train.json + annotations/val.json + images/train/ + images/val/",
        lambda look: find_datumaro(look.tree, look.path),
        file=datumaro_file,
        format="datumaro",
    ),
    Layout(
        "FiftyOne JSON",
        "samples.json + data/ (FiftyOneDataset)\n"
        "labels.json + data/ (FiftyOneImageDetectionDataset)",
        lambda look: find_fiftyone(look.tree, look.path),
        file=fiftyone_file,
        format="fiftyone",
    ),
    Layout(
        "imglab XML",
        "training.xml + testing.xml of dlib's imglab, with the images at the paths that they name",
        lambda look: find_imglab(look.tree, look.path),
        file=imglab_file,
        format="imglab",
    ),
    Layout(
        "RetinaNet's CSV",
        "train.csv + val.csv with lines path,x1,y1,x2,y2,class and no header + classes.csv",
        lambda look: find_retinanet(look.tree, look.path),
        file=retinanet_file,
        format="retinanet",
        write=write_retinanet,
        keeps=BOXES,
    ),
    Layout(
        "CSV of keypoints",
        "train.csv + val.csv with the columns path,nose_x,nose_y,... or path,x1,y1,x2,y2,x3,y3,...",
        lambda look: find_points(look.tree, look.path),
        format="csv",
        file=lambda path: point_splits(path) if fits_points(path) else {},
    ),
    Layout(
        "CSV of boxes",
        "train.csv + val.csv with the columns path,label,x1,y1,x2,y2 (or x,y,w,h, or bbox)",
        lambda look: find_csv(look.tree, look.path, objects=True),
        format="csv",
        file=lambda path: csv_splits(path, objects=True) if fits(path, objects=True) else {},
    ),
    Layout(
        "label images of instances",
        "images/train/ + masks/train/*.png with a number for each object (Cellpose's a_masks.png)\n"
        "x/images/x.png + x/masks/*.png with a file for each object",
        lambda look: find_instances(look.tree, look.path, forced=look.format == "instances"),
        format="instances",
        write=write_instances,
        keeps=frozenset(("masks", "parts")),
    ),
    Layout(
        "Cityscapes",
        "leftImg8bit/train/aachen/*.png + gtFine/train/aachen/*_gtFine_labelIds.png",
        lambda look: find_cityscapes(look.tree, look.path),
        records="maps",
        format="cityscapes",
    ),
    Layout(
        "Pascal VOC's label maps",
        "JPEGImages/ + SegmentationClass/ (SegmentationClassAug/) + ImageSets/Segmentation/*.txt\n"
        "img/ + cls/*.mat + train.txt + val.txt (SBD)",
        lambda look: find_voc_maps(look.tree, look.path),
        records="maps",
    ),
    Layout(
        "COCO panoptic",
        "annotations/panoptic_train2017.json + annotations/panoptic_train2017/*.png + train2017/",
        lambda look: find_panoptic(look.tree, look.path),
        records="maps",
        file=panoptic_file,
        format="coco_panoptic",
    ),
    Layout(
        "things of COCO panoptic",
        find=lambda look: find_panoptic_objects(look.tree, look.path),
        file=panoptic_objects_file,
        format="coco_panoptic",
    ),
    Layout(
        "COCO-Stuff",
        "stuffthingmaps/train2017/*.png + images/train2017/ (or train2017/)\n"
        "images/ + annotations/*.mat + imageLists/*.txt (COCO-Stuff 10k)",
        lambda look: find_stuff(look.tree, look.path),
        records="maps",
        format="coco_stuff",
    ),
    Layout(
        "ADE20K",
        "images/training/ + annotations/training/*.png + objectInfo150.txt",
        lambda look: find_ade20k(look.tree, look.path),
        records="maps",
        format="ade20k",
    ),
    Layout(
        "CamVid",
        "train/ + trainannot/ + val/ + valannot/; 701_StillsRaw_full/ + LabeledApproved_full/",
        lambda look: find_camvid(look.tree, look.path),
        records="maps",
        format="camvid",
    ),
    Layout(
        "folders of label maps",
        "images/train/ + masks/train/*.png + images/val/ + masks/val/*.png + classes.txt\n"
        "train/images/ + train/masks/; train/ + train_labels/; train/a.jpg + train/a_mask.png",
        lambda look: (
            {}
            if look.format is None and declares_instances(look.path)
            else with_polygons(find_maps(look.tree, look.path), look.coco)
        ),
        records="maps",
        format="maps",
        write=write_maps,
    ),
    Layout(
        "ImageNet",
        "train/n01440764/*.JPEG + val/*.JPEG + ILSVRC2012_validation_ground_truth.txt + meta.mat",
        lambda look: find_imagenet(look.tree, look.path),
        records="labels",
        format="imagenet",
    ),
    Layout(
        "folders of classes",
        "train/cat/*.jpg + train/dog/*.jpg + val/cat/*.jpg + val/dog/*.jpg; cat/*.jpg + dog/*.jpg",
        lambda look: find_class_folders(look.tree, look.path),
        records="labels",
        format="folders",
        write=write_class_folders,
    ),
    Layout(
        "CSV of labels",
        "labels.csv with the columns path,label (or a;b) and, if wanted, split,group",
        lambda look: find_csv(look.tree, look.path),
        records="labels",
        file=lambda path: csv_splits(path) if path.suffix.lower() == ".csv" else {},
        format="csv",
        write=write_csv,
    ),
    Layout(
        "MNIST",
        "train-images-idx3-ubyte.gz + train-labels-idx1-ubyte.gz + t10k-...",
        lambda look: find_idx(look.tree, look.path),
        records="labels",
        file=idx_splits,
        format="idx",
    ),
    Layout(
        "CIFAR",
        "data_batch_1.bin ... + test_batch.bin + batches.meta.txt; or the same as pickles",
        lambda look: find_cifar(look.tree, look.path),
        records="labels",
        file=cifar_splits,
        format="cifar",
    ),
    Layout(
        "tables of Hugging Face",
        "data/train-00000-of-00001.parquet + data/validation-00000-of-00001.parquet\n"
        "train/*.arrow + test/*.arrow; train/metadata.jsonl beside the images",
        lambda look: find_huggingface(look.tree, look.path, look.format),
        file=huggingface_file,
        format="huggingface",
        write=write_huggingface,
        keeps=BOXES | REGIONS,
        last=True,
    ),
    *(
        Layout(
            f"tables of Hugging Face, boxes as {order}",
            find=_boxes_as(name),
            format=name,
            last=True,
        )
        for name, order in ORDERS.items()
    ),
    Layout(
        "tables of Hugging Face with labels",
        find=lambda look: find_label_tables(look.tree, look.path),
        records="labels",
        format="huggingface",
        last=True,
    ),
    Layout(
        "a JSON that its reader refuses",
        find=lambda look: coco.refused(look.coco),
        format="coco",
        last=True,
    ),
    Layout("LabelMe XML", todo=EXPORT),
    Layout("Cityscapes JSON", todo="convert it to COCO JSON"),
    Layout("BDD100K JSON", todo="convert it to COCO JSON (bdd100k.label.to_coco)"),
    Layout("Labelbox JSON", todo=EXPORT),
    Layout(
        "YOLO labels",
        todo="give the folder that holds the images as well, images/ beside labels/, or data.yaml",
    ),
    Layout(
        "YOLO data.yaml",
        todo="no image that it names has a file of labels; those of images/train/a.jpg are to be "
        "labels/train/a.txt",
    ),
    Layout(
        "CSV table",
        todo="name its columns path,label and, for boxes, x1,y1,x2,y2 or x,y,w,h; for keypoints "
        "path,nose_x,nose_y and so on",
    ),
    Layout(
        NAPARI,
        todo="they name no image: convert the layer to labels in napari and save it as TIFF, of "
        "the name of its image, for format=instances",
    ),
    Layout("TFRecord", todo="export the data set as COCO JSON or Pascal VOC instead"),
    Layout("JSON lines", todo=EXPORT),
    Layout(MISNAMED, todo="let its name end in .json"),
    Layout(
        "mask images",
        todo="put their images beside them, images/ and masks/ with the same names; where pixels "
        "hold the numbers of objects, say format=instances",
    ),
    Layout(CAPTIONS, todo="give the file of objects, instances_*.json"),
    Layout(PANOPTIC, todo="give the file of objects, instances_*.json"),
    Layout(IMAGES_ONLY, todo="give the file that has the list annotations as well"),
    Layout(RESULTS, todo="these are detections: give the ground truth that they were scored with"),
    *(Layout(kind, todo=todo) for kind, todo in MEND.items()),
)
ROWS = {row.name: row for row in TABLE}
