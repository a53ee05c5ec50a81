"""What the notebooks share: loaders, training loops, metrics and plotting for images.

Modules stand in floors, each importing only from floors below it:

5  cli, batch, report   run notebooks, summarize, write the report (they never import torch)
4  plots, records       figures; metrics.json, run.json, claims
3  training             epochs with checkpoints, fit, evaluate
2  loaders, models      images decoded once, transforms, splits; blocks used by several notebooks
1  datasets, losses, metrics, baselines
0  runtime, files, errors, samples
"""
