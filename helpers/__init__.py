"""What the notebooks share: loaders, training loops, metrics and plotting for images.

Modules stand in floors, each importing only from floors below it:

5  cli, batch, report   run notebooks, summarize, write the report (they never import torch)
   resume, execution, cluster, compare, explore, audit
4  plots, records       figures; metrics.json, run.json, claims
3  training, features   epochs with checkpoints, fit, evaluate; features of a frozen backbone, kept
2  loaders, models      images decoded once, transforms, splits; blocks used by several notebooks
   backbones, predictor pretrained networks; a trained model as a file that predicts
1  datasets, cards, readers, weights, losses, metrics, segmentation, baselines,
   duplicates
0  runtime, files, errors, parameters, samples
"""
