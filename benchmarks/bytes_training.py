"""Local training of many devices at once: the steps of `hushfleet.learning.local.train`, with a device axis in front.

A small network's step costs more in calls than in arithmetic; of a hundred devices in one call nearly nothing is left.
"""

from collections.abc import Sequence
from itertools import islice

import numpy as np
from bytes_tasks import Rows, Task
from numpy.typing import NDArray

from hushfleet.learning.local import LARGEST_LOSS, LocalResult, balanced_batches_of, batches_of

Flat = NDArray[np.float32]

AT_ONCE = 250_000
"""Parameters of the devices that are trained together: they stay in the cache."""


def train_together(flat: Flat, task: Task, seeds: Sequence[bytes]) -> list[LocalResult]:
    """What each device's training gives; `seeds` order their rows."""
    together = max(1, AT_ONCE // len(flat))
    results: list[LocalResult] = []
    for start in range(0, len(task.devices), together):
        part = slice(start, start + together)
        results += _train(flat, task, task.devices[part], seeds[part])
    return results


def _train(flat: Flat, task: Task, devices: Sequence[Rows], seeds: Sequence[bytes]) -> list[LocalResult]:
    trained = np.tile(flat, (len(devices), 1))
    velocity = np.zeros_like(trained)
    gradient = np.empty_like(trained)
    model, slopes = _views(trained, task), _views(gradient, task)
    loss_sums = np.zeros(len(devices))
    sizes = np.array([min(task.batch, len(rows.y)) for rows in devices])
    # Where a device has fewer rows than a batch, the places left over weigh nothing.
    weights = ((np.arange(task.batch) < sizes[:, None]) / sizes[:, None]).astype(np.float32)
    for x, y in zip(*_batches(task, devices, seeds), strict=True):
        activations = [x]
        for (matrix, bias), layer in zip(model, task.layers, strict=True):
            outputs = activations[-1] @ matrix + bias[:, None]
            activations.append(np.maximum(outputs, 0, out=outputs) if layer.act == "relu" else outputs)
        shifted = activations[-1] - activations[-1].max(axis=2, keepdims=True)
        exponentials = np.exp(shifted)
        totals = exponentials.sum(axis=2, keepdims=True)
        losses = np.log(totals[:, :, 0]) - np.take_along_axis(shifted, y[:, :, None], axis=2)[:, :, 0]
        loss_sums += np.where(weights > 0, np.fmin(losses, LARGEST_LOSS), 0).sum(axis=1)
        slope = exponentials / totals
        slope[np.arange(len(devices))[:, None], np.arange(task.batch), y] -= 1
        slope *= weights[:, :, None]
        for depth in reversed(range(len(model))):
            np.matmul(activations[depth].transpose(0, 2, 1), slope, out=slopes[depth][0])
            np.sum(slope, axis=1, out=slopes[depth][1])
            if depth:
                slope = (slope @ model[depth][0].transpose(0, 2, 1)) * (activations[depth] > 0)
        if task.proximal:
            gradient += np.float32(task.proximal) * (trained - flat)
        if task.momentum:
            velocity *= np.float32(task.momentum)
            velocity += gradient
            trained -= np.float32(task.rate) * velocity
        else:
            gradient *= np.float32(task.rate)
            trained -= gradient
    trained -= flat
    examples = (task.steps * sizes).tolist()
    return [LocalResult(*one) for one in zip(trained, examples, loss_sums.tolist(), strict=True)]


def _views(flats: Flat, task: Task) -> list[tuple[Flat, Flat]]:
    """Weights, shape (devices, inputs, outputs), and biases, shape (devices, outputs), of each layer."""
    views: list[tuple[Flat, Flat]] = []
    begin = 0
    for layer in task.layers:
        middle, end = begin + layer.inputs * layer.outputs, begin + (layer.inputs + 1) * layer.outputs
        views.append((flats[:, begin:middle].reshape(-1, layer.inputs, layer.outputs), flats[:, middle:end]))
        begin = end
    return views


def _batches(task: Task, devices: Sequence[Rows], seeds: Sequence[bytes]) -> tuple[Flat, NDArray[np.int64]]:
    """Every step's rows, shape (steps, devices, batch, features), and labels; places left over hold the first row."""
    features = devices[0].x.shape[1]
    x = np.empty((task.steps, len(devices), task.batch, features), np.float32)
    y = np.empty((task.steps, len(devices), task.batch), np.int64)
    for device, (rows, seed) in enumerate(zip(devices, seeds, strict=True)):
        size = min(task.batch, len(rows.y))
        picked = np.zeros((task.steps, task.batch), np.intp)
        batches = balanced_batches_of(rows.y, size, seed) if task.balanced else batches_of(len(rows.y), size, seed)
        picked[:, :size] = list(islice(batches, task.steps))
        x[:, device], y[:, device] = rows.x[picked], rows.y[picked]
    return x, y
