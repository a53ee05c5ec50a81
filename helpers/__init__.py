"""What the notebooks share: loaders, training loops, metrics and plotting for images.

Modules stand in floors. Each imports only from its own floor or from floors below, never in a circle
(tests/test_floors.py reads this table):

5  cli, batch, runs, execution, worker, resume, cluster, report, compare, explore, pages, audit, data_tools
     run notebooks, report, check datasets; what is heavy is imported when a command needs it, and torch
     only by what audits a folder or predicts
4  plots, records, predictor
     figures; metrics.json, run.json, claims; a trained model as a file that predicts
3  training, features
     epochs with checkpoints, fit, evaluate; features of a frozen backbone, kept
2  loaders, models, backbones, efficientnet_lite, distances
     images decoded once, transforms, splits; blocks used by several notebooks; FID and KID
1  datasets, cards, readers, weights, losses, generative, metrics, segmentation, reconstruction, baselines
     layouts on disk, pretrained weights, losses, metrics, trivial baselines
1  duplicates
     copies and near-copies among pictures
0  runtime, files, downloads, errors, parameters, samples
     seed, device, folders; files written in one stroke or fetched and verified; sample data
"""
