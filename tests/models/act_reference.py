"""ACT once more, written from the paper and DETR's, for comparison: a sample, a head, a step at a time.

It takes the weights of `hil_rllib.models.act.ACT` by name and shares no code with it.
"""

from __future__ import annotations

import math

import numpy as np


def linear(w, name, x):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def layer_norm(w, name, x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def attention(w, name, heads, query, key, value, ignored=None):
    q, k, v = (
        linear(w, f"{name}.{part}", x) for part, x in (("query", query), ("key", key), ("value", value))
    )
    size = q.shape[1] // heads
    out = np.zeros_like(q)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for i in range(len(q)):
            scores = [q[i, part] @ k[j, part] / math.sqrt(size) for j in range(len(k))]
            weights = np.array(
                [0.0 if ignored is not None and ignored[j] else math.exp(s) for j, s in enumerate(scores)]
            )
            out[i, part] = weights / weights.sum() @ v[:, part]
    return linear(w, f"{name}.out", out)


def feedforward(w, name, x, norm):
    change = linear(w, f"{name}.narrow", np.maximum(linear(w, f"{name}.widen", x), 0))
    return layer_norm(w, f"{name}.norms.{norm}", x + change)


def encoder_layer(w, name, heads, x, positions, ignored=None):
    seen = attention(w, f"{name}.attend.0", heads, x + positions, x + positions, x, ignored)
    return feedforward(w, name, layer_norm(w, f"{name}.norms.0", x + seen), 1)


def decoder_layer(w, name, heads, x, queries, memory, positions):
    x = layer_norm(
        w, f"{name}.norms.0", x + attention(w, f"{name}.attend.0", heads, x + queries, x + queries, x)
    )
    seen = attention(w, f"{name}.attend.1", heads, x + queries, memory + positions, memory)
    return feedforward(w, name, layer_norm(w, f"{name}.norms.1", x + seen), 2)


def sinusoid(position, width):
    """Vaswani et al. 2017, section 3.5."""
    return np.array(
        [(math.cos if i % 2 else math.sin)(position / 10000 ** (2 * (i // 2) / width)) for i in range(width)]
    )


def style(w, sizes, state, actions, padded):
    """The autoencoder's encoder: [CLS], joints, actions → mean and log-variance of z. ACT, figure 4, left."""
    tokens = np.concatenate(
        [w["summary"][0], [linear(w, "style_state", state)], linear(w, "style_action", actions)]
    )
    positions = np.stack([sinusoid(t, sizes.width) for t in range(len(tokens))])
    ignored = [False, False, *padded]
    for layer in range(sizes.encoder_layers):
        tokens = encoder_layer(w, f"style_layers.{layer}", sizes.heads, tokens, positions, ignored)
    return np.split(linear(w, "style_out", tokens[0]), 2)


def grid(width):
    """DETR's positions of the 4×4 cells: a sine embedding of y in (0, 2π], then one of x."""
    return np.stack(
        [
            np.concatenate([sinusoid_of((1 + place) * 2 * math.pi / 4, width // 2) for place in (y, x)])
            for y in range(4)
            for x in range(4)
        ]
    )


def sinusoid_of(angle, width):
    return np.array(
        [(math.cos if i % 2 else math.sin)(angle / 10000 ** (2 * (i // 2) / width)) for i in range(width)]
    )


def plan(w, sizes, z, state, world, features):
    """z, joints and images → a chunk. ACT, figure 4, right. features: (512, 4, 4) per camera."""
    tokens, positions = [linear(w, "latent_in", z), linear(w, "state_in", state)], list(w["places"])
    if world is not None:
        tokens.append(linear(w, "world_in", world))
    for camera, image in enumerate(features):
        for y in range(4):
            for x in range(4):
                tokens.append(linear(w, "patch_in", image[:, y, x]))
        positions += list(grid(sizes.width) + w["camera_places"][camera])
    memory, positions = np.stack(tokens), np.stack(positions)
    for layer in range(sizes.encoder_layers):
        memory = encoder_layer(w, f"encoder_layers.{layer}", sizes.heads, memory, positions)
    chunk = np.zeros((sizes.chunk, sizes.width))
    for layer in range(sizes.decoder_layers):
        chunk = decoder_layer(w, f"decoder_layers.{layer}", sizes.heads, chunk, w["steps"], memory, positions)
    return linear(w, "action_out", layer_norm(w, "decoder_norm", chunk))


def losses(plans, means, log_vars, actions, padded):
    """Of a batch: mean absolute error, padded steps counted as none, and mean KL(N(μ, σ²) ‖ N(0, 1))."""
    l1 = [
        0.0 if padded[b][t] else abs(plans[b][t][i] - actions[b][t][i])
        for b in range(len(plans))
        for t in range(len(plans[b]))
        for i in range(len(plans[b][t]))
    ]
    kl = [
        sum(0.5 * (m * m + math.exp(v) - 1 - v) for m, v in zip(mean, log_var, strict=True))
        for mean, log_var in zip(means, log_vars, strict=True)
    ]
    return sum(l1) / len(l1), sum(kl) / len(kl)
