from .network import PREPROCESSING, DemoNet, load_network
from .scenes import CLASSES, Scene, Thing, draw_scene

__all__ = ["CLASSES", "PREPROCESSING", "DemoNet", "Scene", "Thing", "draw_scene", "load_network"]
