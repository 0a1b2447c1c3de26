"""The modalities themselves, one file each, and the catalogue of all.

The network's side of a modality is in the file of the same name in model/modalities. Others find a modality in the
catalogue, by its name; plug-ins may derive from one.
"""
