"""What a report says image by image, from the answers that runs keep: pairs, flips, classes, poses, the hardest images.

Read ``blocks.py`` first. N test images, S seeds, K classes. Every number comes from predictions/ of run directories.
"""
