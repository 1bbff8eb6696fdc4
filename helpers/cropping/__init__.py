"""Chapter 2: from prepared faces to aligned crops, and the audit of shortcuts.

Cropping: `mtcnn`, `detector`, `align`, `crops`. The audit: `probes`, `shortcuts`, `small_net`.
Shown: `crop_views`, `probe_views`.
"""
