"""Tiny networks of random weights, saved as the libraries of networks save theirs."""

import torch

from relume.models.libraries import import_library

NETWORKS = {
    "vit": ("ViT", {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}, "ViT"),
    "deit": ("DeiT", {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}, "DeiT"),
    "swin": ("Swin", {"embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4, "patch_size": 4}, "ViT"),
    "resnet": ("ResNet", {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1], "layer_type": "basic"}, "ConvNext"),
    "convnext": ("ConvNext", {"hidden_sizes": [8, 12], "depths": [1, 1], "num_stages": 2}, "ConvNext"),
}


CLASSES = {0: "cat", 1: "dog", 2: "espresso"}


def hugging_face_folder(kind, folder, **changes):
    """A tiny network of random weights, saved as on the hub."""
    transformers = import_library("transformers")
    name, options, processor = NETWORKS[kind]
    size = {"image_size": 32, "patch_size": 8} if kind in ("vit", "deit") else {"image_size": 32} if kind == "swin" else {}
    config = getattr(transformers, f"{name}Config")(**{**size, **options, "id2label": CLASSES, **changes})
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForImageClassification")(config).eval()
    model.save_pretrained(folder)
    sizes = {"shortest_edge": 32} if processor == "ConvNext" else {"height": 36, "width": 36} if kind == "deit" else None
    crop = {"crop_size": {"height": 32, "width": 32}} if kind == "deit" else {}
    getattr(transformers, f"{processor}ImageProcessor")(size=sizes or {"height": 32, "width": 32}, **crop).save_pretrained(
        folder
    )
    return model
