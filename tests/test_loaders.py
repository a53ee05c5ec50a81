"""From files to batches: decoding and its cache, splits by group, transforms that repeat exactly."""

import os
import pickle
import struct
import zlib
from contextlib import suppress

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tiny_images import write_image, write_mask
from torch import nn
from torchvision.transforms import v2

from helpers import loaders
from helpers.errors import UserError
from helpers.readers import ORIENTATION, images_in

pytestmark = pytest.mark.usefixtures("cache")


def cached_files(cache) -> list[str]:
    return sorted(os.listdir(cache / "images")) if (cache / "images").is_dir() else []


def test_images_are_decoded_to_the_asked_size_and_channels(tmp_path):
    paths = [write_image(tmp_path / f"{n}.png", seed=n) for n in range(2)]
    grey, colour = loaders.decode(paths), loaders.decode(paths, size=(6, 4), mode="RGB")
    assert (grey.shape, grey.dtype) == ((2, 1, 10, 12), torch.uint8)
    assert colour.shape == (2, 3, 6, 4)
    assert torch.equal(grey[1, 0], torch.tensor(np.array(Image.open(paths[1]))))
    assert torch.equal(colour[:, 0], colour[:, 2])


def test_webp_is_an_image(tmp_path):
    Image.open(write_image(tmp_path / "a.png")).save(tmp_path / "a.webp", lossless=True)
    assert [path.name for path in images_in(tmp_path)] == ["a.png", "a.webp"]
    both = loaders.decode([tmp_path / "a.png", tmp_path / "a.webp"])
    assert torch.equal(both[0], both[1])


@pytest.mark.parametrize("mode", ["P", "LA", "RGBA", "1", "CMYK"])
def test_files_of_other_modes_become_grey(tmp_path, mode):
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.open(write_image(tmp_path / "a.png", mode="RGB")).convert(mode).save(tmp_path / f"b.{suffix}")
    assert loaders.decode([tmp_path / f"b.{suffix}"]).shape == (1, 1, 10, 12)


def test_masks_are_cut_in_the_middle_and_stay_labels_when_resized(tmp_path):
    image = write_image(tmp_path / "a.png")
    masks = [write_mask(tmp_path / f"m{low}.gif", low=low, high=high) for low, high in ((0, 255), (3, 253))]
    small = loaders.decode_masks(masks, like=[image, image], size=(5, 6))
    assert small.shape == (2, 1, 5, 6)
    assert small.dtype == torch.uint8
    assert small[:, 0, 0].tolist() == [[0, 0, 0, 1, 1, 1]] * 2


@pytest.mark.parametrize(
    ("name", "high", "named"),
    [
        ("mask.png", 1, "are 0 and 1"),
        ("mask.png", 2, "end at 2"),  # left lung 1, right lung 2
        ("mask.png", 127, "end at 127"),
        ("mask.jpg", 1, "are 0 and 1"),
        ("mask.jpg", 38, "end at 38"),
    ],
)
def test_faint_masks_are_not_taken_for_empty(tmp_path, name, high, named):
    image, mask = write_image(tmp_path / "a.png"), write_mask(tmp_path / name, low=high, high=high)
    with pytest.raises(UserError, match=rf"{name}: the mask's values {named}; write them as 0 and 255"):
        loaders.decode_masks([mask], like=[image])


def test_a_mask_whose_shape_is_transparent_is_refused(tmp_path):
    pixels = np.full((10, 12, 4), 255, np.uint8)
    pixels[:5, :, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    with pytest.raises(UserError, match=r"mask\.png: the mask is partly transparent; save it in black and"):
        loaders.decode_masks([tmp_path / "mask.png"], like=[write_image(tmp_path / "a.png")])


# 3: what JPEG leaves of black.
@pytest.mark.parametrize(("name", "high"), [("empty.png", 0), ("empty.jpg", 3)])
def test_empty_masks_are_empty(tmp_path, name, high):
    image, empty = write_image(tmp_path / "a.png"), write_mask(tmp_path / name, low=high, high=high)
    assert not loaders.decode_masks([empty], like=[image]).any()


@pytest.mark.parametrize(("suffix", "how"), [("jpg", {"subsampling": 0}), ("webp", {"lossless": True})])
def test_a_photograph_is_turned_as_its_camera_says(tmp_path, suffix, how):
    mark = Image.Exif()
    mark[ORIENTATION] = 6  # a quarter turn
    upright = Image.open(write_image(tmp_path / "a.png", (12, 10)))
    photograph = upright.transpose(Image.Transpose.ROTATE_90)
    photograph.save(tmp_path / f"b.{suffix}", exif=mark, quality=100, **how)
    turned = loaders.decode([tmp_path / f"b.{suffix}"])
    assert turned.shape == (1, 1, 10, 12)
    assert (turned.int() - loaders.decode([tmp_path / "a.png"]).int()).abs().max() < 10


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/h\xe4.png")
    try:
        os.replace(write_image(tmp_path / "a.png"), path)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    with pytest.raises(UserError, match=r"h\\udce4\.png: the name is not UTF-8; rename the file"):
        loaders.decode([path])


def test_the_second_look_comes_from_the_cache(tmp_path, cache):
    path = write_image(tmp_path / "a.png")
    first = loaders.decode([path])
    files = cached_files(cache)
    assert len(files) == 1
    status = path.stat()
    path.write_bytes(b"\0" * status.st_size)  # could not be decoded again
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert torch.equal(loaders.decode([path]), first)
    assert cached_files(cache) == files


def test_what_older_checks_let_into_the_cache_is_read_again(tmp_path, cache, monkeypatch):
    path = write_image(tmp_path / "a.png")
    with monkeypatch.context() as older:
        older.setattr(loaders, "CACHED", loaders.CACHED - 1)
        loaders.decode([path])
    before = cached_files(cache)
    loaders.decode([path])
    assert len(before) == 1
    assert len(cached_files(cache)) == 2


def test_another_file_size_mode_or_time_makes_another_cache(tmp_path, cache):
    paths = [write_image(tmp_path / f"{n}.png", seed=n) for n in range(2)]
    loaders.decode(paths)
    loaders.decode(paths[:1])
    loaders.decode(paths, mode="RGB")
    loaders.decode(paths, size=(5, 5))
    loaders.decode_masks(paths, like=paths)
    assert len(cached_files(cache)) == 5
    write_image(paths[0], seed=9)
    os.utime(paths[0], ns=(0, 1))
    changed = loaders.decode(paths)
    assert torch.equal(changed[0, 0], torch.tensor(np.array(Image.open(paths[0]))))
    assert len(cached_files(cache)) == 6


def test_images_looked_at_once_are_not_kept(tmp_path, cache):
    path = write_image(tmp_path / "a.png")
    assert torch.equal(loaders.decode([path], cache=False), loaders.decode([path]))
    assert len(cached_files(cache)) == 1


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_damaged_cache_is_rebuilt_with_a_notice(tmp_path, cache, capsys, damage):
    path = write_image(tmp_path / "a.png")
    images = loaders.decode([path])
    (file,) = (cache / "images").iterdir()
    content = bytearray(file.read_bytes())
    content[-200] ^= 0xFF  # in the pixels
    file.write_bytes(
        {"cut": content[:300], "flipped": content, "empty": b"", "text": b"no archive at all"}[damage]
    )
    assert torch.equal(loaders.decode([path]), images)
    assert "the cached images are damaged; reading the files again" in capsys.readouterr().out
    assert torch.equal(loaders.decode([path]), images)
    assert capsys.readouterr().out == ""
    assert cached_files(cache) == [file.name]


def test_unreadable_and_truncated_images_are_named_and_leave_no_cache(tmp_path, cache):
    good = write_image(tmp_path / "good.png")
    text = tmp_path / "text.png"
    text.write_text("no image")
    cut = write_image(tmp_path / "cut.jpeg", size=(80, 80))
    cut.write_bytes(cut.read_bytes()[:900])
    for bad in (text, cut):
        with pytest.raises(UserError, match=f"{bad.name}: not a readable image; replace or remove"):
            loaders.decode([good, bad], size=(8, 8))
        with pytest.raises(UserError, match=bad.name):
            loaders.decode_masks([bad], like=[bad])
    assert cached_files(cache) == []


def test_missing_files_and_empty_tables_are_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.png: the file is gone"):
        loaders.decode([tmp_path / "gone.png"])
    with pytest.raises(UserError, match=r"gone\.png: cannot be read \(No such file"):
        loaders.decode([tmp_path / "gone.png"], cache=False)
    with pytest.raises(UserError, match="the table is empty"):
        loaders.decode([])


def test_sixteen_bits_are_not_cut_to_white_silently(tmp_path):
    Image.fromarray(np.full((4, 4), 4000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(UserError, match=r"deep\.png: has more than 8 bits a channel"):
        loaders.decode([tmp_path / "deep.png"])


def test_sixteen_bits_a_colour_are_not_cut_silently(tmp_path):
    """A PNG written by hand, since Pillow writes none: one pixel of 4,095, which cut would be 15 of 255."""
    packed = zlib.compress(b"\0" + (4095).to_bytes(2) * 3)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)), (b"IDAT", packed), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    (tmp_path / "deep.png").write_bytes(content)
    with pytest.raises(UserError, match=r"deep\.png: has more than 8 bits a channel"):
        loaders.decode([tmp_path / "deep.png"], mode="RGB")


def test_images_of_different_sizes_need_a_size(tmp_path):
    paths = [write_image(tmp_path / "a.png", (12, 10)), write_image(tmp_path / "b.png", (10, 12))]
    with pytest.raises(UserError, match=r"b\.png: 10 × 12 pixels, but .*a\.png has 12 × 10"):
        loaders.decode(paths)
    assert loaders.decode(paths, size=(8, 8)).shape == (2, 1, 8, 8)


def test_a_mask_of_another_size_is_named_with_its_image(tmp_path):
    image, mask = write_image(tmp_path / "image.png"), write_mask(tmp_path / "mask.png", (10, 10))
    with pytest.raises(
        UserError, match=r"mask\.png: the mask is 10 × 10 pixels, its image .*image\.png is 12 × 10"
    ):
        loaders.decode_masks([mask], like=[image], size=(8, 8))
    fitting = write_image(tmp_path / "fitting.png", (10, 10))
    loaders.decode_masks([mask], like=[fitting], size=(8, 8))
    with pytest.raises(UserError, match=r"mask\.png"):  # also when the mask itself is known already
        loaders.decode_masks([mask], like=[image], size=(8, 8))


def test_a_mask_may_have_another_scale_where_that_is_asked_for_but_not_another_shape(tmp_path):
    image = write_image(tmp_path / "image.png", (30, 20))
    half, square = write_mask(tmp_path / "half.png", (15, 10)), write_mask(tmp_path / "square.png", (15, 15))
    assert loaders.decode_masks([half], like=[image], size=(8, 8), same_size=False).shape == (1, 1, 8, 8)
    with pytest.raises(UserError, match=r"half\.png: the mask is 15 × 10"):  # kept from before, and yet
        loaders.decode_masks([half], like=[image], size=(8, 8))
    with pytest.raises(UserError, match=r"square\.png: .* by one of the image's shape"):
        loaders.decode_masks([square], like=[image], size=(8, 8), same_size=False)


def patients(groups: int = 40) -> pd.DataFrame:
    """One to four images a patient; every fourth patient is healthy."""
    rows = [
        ("NORMAL" if group % 4 == 0 else "PNEUMONIA", f"person{group}")
        for group in range(groups)
        for _ in range(1 + group % 4)
    ]
    return pd.DataFrame(rows, columns=["label", "group"], index=range(1000, 1000 + len(rows)))


def test_a_split_keeps_patients_together_and_classes_in_proportion():
    table = patients()
    train, val = loaders.grouped_split(table, folds=5, seed=0)
    assert sorted([*train, *val]) == list(range(len(table)))
    groups, labels = table["group"].to_numpy(), table["label"].to_numpy()
    assert not set(groups[train]) & set(groups[val])
    assert len(val) == pytest.approx(len(table) / 5, rel=0.25)
    share = (labels == "NORMAL").mean()
    assert (labels[val] == "NORMAL").mean() == pytest.approx(share, abs=0.05)


def test_a_split_depends_on_its_seed_alone():
    table = patients()
    first = loaders.grouped_split(table, 5, seed=0)
    np.random.seed(9)  # noqa: NPY002
    assert all(np.array_equal(a, b) for a, b in zip(first, loaders.grouped_split(table, 5, seed=0)))
    assert not np.array_equal(first[1], loaders.grouped_split(table, 5, seed=1)[1])


def test_folds_hold_out_every_row_once():
    table = patients()
    held_out = np.concatenate([val for _, val in loaders.grouped_folds(table, 4, seed=0)])
    assert sorted(held_out) == list(range(len(table)))


def test_too_few_groups_for_a_split_are_named():
    with pytest.raises(UserError, match=r"class NORMAL has 2 group\(s\).*5 folds"):
        loaders.grouped_split(patients(groups=8), folds=5, seed=0)
    with pytest.raises(UserError, match="folds is 1: there must be at least 2"):
        loaders.grouped_split(patients(groups=8), folds=1, seed=0)


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(UserError, match="batch_size is 0: a batch needs at least 1"):
        loaders.make_loader([1, 2, 3], batch_size=0, shuffle=True)


def test_a_samples_randomness_depends_on_its_key_alone():
    def draw(*key: int) -> float:
        with loaders.sample_rng(*key):
            return torch.rand(()).item()

    keys = [(0, 1, 2), (0, 1, 3), (0, 2, 2), (1, 1, 2)]
    forward = [draw(*key) for key in keys]
    assert [draw(*key) for key in reversed(keys)] == forward[::-1]
    assert len(set(forward)) == 4


def test_a_sample_leaves_the_global_generator_undisturbed():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first = torch.rand(1)
    with loaders.sample_rng(0, 0, 0):
        torch.rand(10)
    with suppress(KeyboardInterrupt), loaders.sample_rng(0, 0, 1):
        torch.randn(1)
        raise KeyboardInterrupt
    assert torch.equal(torch.cat([first, torch.rand(2)]), expected)


def add_noise(image):
    return image + torch.rand(image.shape)


def image_data(samples: int = 10, transform=add_noise, seed: int = 0) -> loaders.ImageDataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (samples, 1, 4, 4), dtype=torch.uint8, generator=generator)
    return loaders.ImageDataset(images, np.arange(samples), transform, seed)


def test_items_are_floats_in_0_to_1_with_labels():
    data = image_data(transform=None)
    image, label = data[1, 3]
    assert image.dtype == torch.float32
    assert torch.equal(image, data.images[3] / 255)
    assert label == 3
    assert not data.random
    assert image_data().random
    with pytest.raises(ValueError, match="10 images, but 9 labels"):
        loaders.ImageDataset(data.images, range(9))


def test_items_depend_on_seed_epoch_and_index_and_survive_pickling():
    data = image_data()
    item = data[1, 3][0]
    assert torch.equal(image_data()[1, 3][0], item)
    assert torch.equal(pickle.loads(pickle.dumps(data))[1, 3][0], item)  # what spawned workers get
    assert not torch.equal(data[2, 3][0], item)
    assert not torch.equal(image_data(seed=1)[1, 3][0], item)


def epoch_of(loader, number: int) -> list:
    loader.sampler.set_epoch(number)
    return [part for batch in loader for part in batch]


def test_batches_are_the_same_for_any_number_of_workers_and_any_order_of_epochs():
    alone, helped = (
        loaders.make_loader(image_data(), 4, shuffle=True, seed=5, workers=workers) for workers in (0, 2)
    )
    for one, other in zip(epoch_of(alone, 2), epoch_of(helped, 2)):
        assert torch.equal(one, other)
    epoch_of(alone, 1)
    for one, other in zip(epoch_of(alone, 3), epoch_of(helped, 3)):
        assert torch.equal(one, other)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_draws_nothing_from_the_global_generator(workers):
    loader = loaders.make_loader(image_data(), 4, shuffle=True, workers=workers)
    state = torch.get_rng_state()
    for epoch in (1, 2):
        epoch_of(loader, epoch)
    assert torch.equal(torch.get_rng_state(), state)


def test_shuffling_depends_on_seed_and_epoch():
    def order(seed: int, epoch: int) -> list[int]:
        loader = loaders.make_loader(image_data(), 4, shuffle=True, seed=seed)
        return torch.cat(epoch_of(loader, epoch)[1::2]).tolist()

    assert sorted(order(0, 1)) == list(range(10))
    assert len({tuple(order(*key)) for key in ((0, 1), (0, 2), (1, 1))}) == 3
    plain = loaders.make_loader(image_data(), 4)
    assert torch.cat(epoch_of(plain, 7)[1::2]).tolist() == list(range(10))


def test_a_last_batch_of_one_is_dropped_in_training_only():
    def sizes(samples: int, shuffle: bool) -> list[int]:
        loader = loaders.make_loader(image_data(samples), 4, shuffle=shuffle)
        assert len(loader) == len(list(loader))
        return [len(labels) for _, labels in loader]

    assert sizes(9, shuffle=True) == [4, 4]
    assert sizes(9, shuffle=False) == [4, 4, 1]
    assert sizes(10, shuffle=True) == [4, 4, 2]
    assert sizes(1, shuffle=True) == [1]  # all there is


def test_masks_move_with_their_image():
    height, width = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    picture = (height * 16 + width).to(torch.uint8)[None, None]
    masks = (picture > 100).to(torch.uint8)
    transform = v2.Compose([v2.RandomCrop(8), v2.RandomHorizontalFlip(), v2.RandomRotation([30, 40])])
    data = loaders.SegmentationDataset(picture, masks, None, transform, seed=0, repeats=3)
    assert len(data) == 3
    crops = [data[1, index] for index in range(3)]
    for image, mask, weight in crops:
        assert image.shape == mask.shape == weight.shape == (1, 8, 8)
        assert type(image) is type(mask) is type(weight) is torch.Tensor
        assert image.dtype == mask.dtype == weight.dtype == torch.float32
        assert set(mask.unique().tolist()) <= {0, 1}
        inside = weight == 1  # a rotation brings in corners that are nowhere in the picture
        assert 0 < inside.sum() < 64
        assert torch.equal(mask[inside], (image * 255 > 100).float()[inside])
    assert not torch.equal(crops[0][0], crops[1][0])


def test_standardized_floats_pass_as_they_are():
    images = torch.randn(1, 3, 4, 4)
    data = loaders.SegmentationDataset(images, torch.ones(1, 1, 4, 4))
    assert torch.equal(data[0, 0][0], images[0])
    assert not data.random


def test_standardize_uses_the_pixels_inside_alone():
    images = torch.randint(0, 256, (2, 3, 20, 30), dtype=torch.uint8)
    inside = torch.zeros(2, 1, 20, 30, dtype=torch.uint8)
    inside[:, :, 4:16, 5:25] = 1
    result = loaders.standardize(images, inside)
    pixels = result[:, :, 4:16, 5:25].flatten(2)
    torch.testing.assert_close(pixels.mean(2), torch.zeros(2, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(pixels.std(2, correction=0), torch.ones(2, 3))
    assert (result * (1 - inside) == 0).all()
    changed = torch.where(inside == 1, images, 255 - images)
    assert torch.equal(loaders.standardize(changed, inside), result)
    torch.testing.assert_close(loaders.standardize(images), nn.InstanceNorm2d(3, eps=0)(images.float()))


def test_standardize_makes_a_flat_image_zero():
    for value in (1, 137, 255):
        flat = torch.full((1, 1, 1021, 1024), value, dtype=torch.uint8)  # large: sums of fp32 would round
        assert loaders.standardize(flat).abs().max() < 1e-3
    nothing = torch.zeros(1, 1, 4, 4)
    assert (loaders.standardize(torch.rand(1, 1, 4, 4), nothing) == 0).all()
