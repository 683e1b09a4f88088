"""The style vector's parts, and the fit of those that need no training."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import draw_styles
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from common.images.cache import ImageCache
from common.images.transforms import Augmentation
from common.metrics.embedding import retrieval_metrics
from common.models.linear_discriminant import SHRINKAGE, LinearDiscriminant
from common.samples.invented import draw_bank
from dataset import StyleDataset, find_samples
from model import VisionStyleEncoder
from style_head import DIRECTIONS, OCTAVES, RINGS, SECTORS, SHARES, power_spectrum
from style_readout import WEIGHTS, fit_readout
from targets import TargetShapes

CPU = torch.device("cpu")


def clusters(classes, each, seed=0):
    """Classes that differ in two directions; a third, common to all, has the widest spread."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.zeros(classes, 6)
    centres[:, :2] = 3 * torch.randn(classes, 2, generator=random)
    noise = torch.randn(classes, each, 6, generator=random) * torch.tensor([0.5, 0.5, 8, 1, 1, 1])
    return (centres[:, None] + noise).flatten(0, 1), torch.arange(classes).repeat_interleave(each)


def test_directions_are_those_of_scikit_learn():
    vectors, labels = clusters(5, 12)
    ours = LinearDiscriminant([6], 4)
    ours.fit([(vectors, labels, 1.0)])
    scaled = (vectors - vectors.mean(0)) / (vectors.std(0) + 1e-3 * vectors.std(0).max())
    theirs = LinearDiscriminantAnalysis(solver="eigen", shrinkage=SHRINKAGE, n_components=4).fit(scaled, labels)
    projected = (vectors - ours.mean) @ ours.directions
    wanted = torch.tensor(scaled.numpy() @ theirs.scalings_[:, :4], dtype=torch.float32)
    for column in range(2):  # up to sign and length; theirs shrinks the whole covariance too, so lesser ones may differ
        cosine = F.cosine_similarity(projected[:, column], wanted[:, column] - wanted[:, column].mean(), dim=0)
        assert abs(cosine) > 0.99


def test_it_separates_classes_that_the_fit_has_not_seen():
    discriminant = LinearDiscriminant([6], 4)
    assert not discriminant(torch.randn(3, 6)).any()  # before the fit: no part of a style vector
    discriminant.fit([(*clusters(20, 10), 1.0)])
    vectors, labels = clusters(20, 10, seed=1)
    before, after = (retrieval_metrics(rows, labels)["map_at_r"] for rows in (vectors, discriminant(vectors)))
    assert after > 1.4 * before


def test_a_second_source_shows_the_directions_that_the_first_lacks():
    vectors, labels = clusters(20, 10)
    alone, both = LinearDiscriminant([6], 4), LinearDiscriminant([6], 4)
    alone.fit([(vectors[:20], labels[:20], 1.0)])  # two classes, one direction
    both.fit([(vectors[:20], labels[:20], 1.0), (vectors[20:], labels[20:], 0.2)])
    assert (alone.directions.norm(dim=0) > 0).sum() == 1
    unseen = clusters(20, 10, seed=2)
    scores = [retrieval_metrics(one(unseen[0]), unseen[1])["auc"] for one in (alone, both)]
    assert scores[1] > scores[0] + 0.05


def test_a_kind_of_few_numbers_counts_as_much_as_one_of_many():
    random = torch.Generator().manual_seed(0)

    def fitted(widths):
        discriminant = LinearDiscriminant(widths, 4)
        vectors, labels = clusters(20, 10)
        discriminant.fit([(with_noise(vectors, labels), labels, 1.0)])
        vectors, labels = clusters(20, 10, seed=1)
        return retrieval_metrics(discriminant(with_noise(vectors, labels)), labels)["map_at_r"]

    def with_noise(vectors, labels):
        return torch.cat([vectors, torch.randn(len(labels), 300, generator=random)], 1)

    assert fitted([6, 300]) > fitted([306]) + 0.05


@pytest.mark.parametrize("cycles, quarter_turns", [(4, 0), (16, 0), (16, 1)])
def test_a_grating_lies_in_its_cell_of_the_spectrum_whatever_its_contrast(cycles, quarter_turns):
    wave = torch.sin(torch.arange(64) * 2 * torch.pi * cycles / 64).expand(1, 3, 64, 64).rot90(quarter_turns, (2, 3))
    spectrum = power_spectrum(0.5 + 0.4 * wave)
    ring, sector = divmod(int(spectrum.argmax()), SECTORS)
    assert ring == int((1 + np.log2(2 * cycles / 64) / OCTAVES) * RINGS)
    assert sector == (0 if quarter_turns else SECTORS // 2)
    torch.testing.assert_close(power_spectrum(0.5 + 0.1 * wave), spectrum, atol=1e-2, rtol=0)
    pixels = (255 * (0.5 + 0.4 * wave)).byte()
    torch.testing.assert_close(power_spectrum(pixels), power_spectrum(pixels / 255))
    blank = power_spectrum(torch.full((1, 3, 64, 64), 200, dtype=torch.uint8))
    assert blank.unique().numel() == 1


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """-> encoder with a fitted read-out, dataset"""
    torch.manual_seed(0)
    samples = find_samples(draw_styles(tmp_path_factory.mktemp("styles"), styles=3, images=6, targets=False))
    images = ImageCache(48)
    bank = draw_bank(4, 4, 32)
    dataset = StyleDataset(samples, images, 32, TargetShapes(), Augmentation(), drawn=bank)
    encoder = VisionStyleEncoder("efficientnet_lite0", image_size=32, style_width=16, frozen_maps=3)
    fit_readout(encoder, dataset, CPU)
    return encoder, dataset


def test_the_vector_is_learned_palette_and_texture_by_their_shares(fitted):
    encoder, dataset = fitted
    image = torch.stack([dataset[index]["image"] for index in range(4)])
    with torch.no_grad():
        whole, learned = encoder.eval()(image).style, encoder.train()(image).style
    assert whole.shape == (4, encoder.style_head.width) == (4, 16 + 2 * DIRECTIONS)
    assert learned.shape == (4, 16)
    lengths = [part.square().sum(1) for part in whole.split([16, DIRECTIONS, DIRECTIONS], 1)]
    for length, share in zip(lengths, (SHARES["learned"], SHARES["palette"], SHARES["texture"])):
        torch.testing.assert_close(length, torch.full((4,), share), atol=1e-4, rtol=0)
    assert sum(SHARES.values()) == pytest.approx(1)


def test_the_fit_is_reproducible_and_leaves_the_network_alone(fitted):
    encoder, dataset = fitted
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    mode = encoder.training
    fit_readout(encoder, dataset, CPU)
    assert encoder.training == mode
    for name, tensor in encoder.state_dict().items():
        torch.testing.assert_close(tensor, before[name])


def test_without_drawings_the_images_alone_are_read(fitted):
    encoder, dataset = fitted
    plain = StyleDataset(dataset.samples, dataset.images, 32, TargetShapes(), Augmentation())
    fit_readout(encoder, plain, CPU)
    directions = encoder.style_head.discriminants["texture"].directions
    assert (directions.norm(dim=0) > 0).sum() == 2  # of three styles
    fit_readout(encoder, dataset, CPU)
    assert (encoder.style_head.discriminants["texture"].directions.norm(dim=0) > 0).sum() > 5
    assert np.isclose(WEIGHTS["real"], 1)
