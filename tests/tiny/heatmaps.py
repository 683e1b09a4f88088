"""A CLIP of a few thousand weights, and heat maps of the papers in plain loops: one image, one head at a time,
gradients by finite differences in double precision.
"""

import torch
import torch.nn.functional as F

from clip.model import CLIPModel

TRANSFORMER = ("grad_eclip", "legrad", "surgery", "chefer")


def tiny_clip(vision=None, **more) -> CLIPModel:
    """A CLIP of a few thousand weights; the text tower only has to be there."""
    vision = vision or {"image_size": 24, "patch_size": 8, "layers": 3, "width": 16, "head_width": 8}
    text = {"context_length": 8, "vocab_size": 50, "width": 8, "heads": 1, "layers": 1}
    config = {
        "architecture": {"embed_dim": 12, "vision_cfg": vision, "text_cfg": text, **more},
        "sigmoid": False,
        "tokenizer": {"kind": "clip", "context_length": 8},
    }
    torch.manual_seed(0)
    model = CLIPModel(config=config)
    for name, value in model.network.visual.named_parameters():
        if "weight" in name and value.ndim == 2:
            torch.nn.init.normal_(value, std=0.4)  # far from uniform attention
    return model.eval().requires_grad_(False)


def ask(model, count=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(256, (count, 3, model.image_size, model.image_size), generator=generator, dtype=torch.uint8)
    width = model.network.visual.output_dim if hasattr(model.network.visual, "output_dim") else 12
    return image, F.normalize(torch.randn(count, width, generator=generator), dim=-1)


def scaled(maps):
    return (maps - maps.min()) / (maps.max() - maps.min())


class Slow:
    """A ViT's forward pass in plain loops. `nudge` = (block, what, index, amount) moves one number on the way."""

    def __init__(self, model, image, text):
        self.visual, self.text = model.network.visual, text
        self.blocks = self.visual.transformer.resblocks
        with torch.no_grad():
            self.start = self.visual._embeds(model.normalise(image[None]))[0]  # (T, V)

    def run(self, nudge=None):
        tokens, self.seen = self.start, []
        for number, block in enumerate(self.blocks):
            asked = block.ln_1(tokens)
            width, heads = tokens.shape[1], block.attn.num_heads
            size = width // heads
            weight, bias = block.attn.in_proj_weight, block.attn.in_proj_bias
            weights, parts, qkv = [], [], []
            for head in range(heads):
                q, k, v = (
                    asked @ weight[part * width + head * size : part * width + (head + 1) * size].T
                    + bias[part * width + head * size : part * width + (head + 1) * size]
                    for part in range(3)
                )
                attention = torch.exp(q @ k.T / size**0.5)
                attention = attention / attention.sum(1, keepdim=True)
                if nudge and nudge[:2] == (number, "weights") and nudge[2][0] == head:
                    attention = attention.clone()
                    attention[nudge[2][1:]] += nudge[3]
                weights.append(attention)
                parts.append(attention @ v)
                qkv.append((q, k, v))
            attended = torch.cat(parts, dim=1)
            if nudge and nudge[:2] == (number, "attended"):
                attended = attended.clone()
                attended[nudge[2]] += nudge[3]
            tokens = tokens + attended @ block.attn.out_proj.weight.T + block.attn.out_proj.bias
            tokens = tokens + block.mlp(block.ln_2(tokens))
            self.seen.append((torch.stack(weights), qkv, asked, tokens))
        return tokens

    def vector(self, token):
        vector = self.visual.ln_post(token) @ self.visual.proj
        return vector / vector.norm()

    def slope(self, block, what, index, answer):
        """d answer / d one number, by central differences."""
        amount = 1e-6
        ends = [answer(self.run((block, what, index, sign * amount))) for sign in (1, -1)]
        return (ends[0] - ends[1]) / (2 * amount)

    def grad_eclip(self):
        last = len(self.blocks) - 1
        self.run()
        _, qkv, *_ = self.seen[last]
        q, k, v = (torch.cat([head[part] for head in qkv], dim=1) for part in range(3))
        width = q.shape[1]
        slopes = [
            self.slope(last, "attended", (0, channel), lambda tokens: self.vector(tokens[0]) @ self.text)
            for channel in range(width)
        ]
        near = [q[0] @ k[i] / (q[0].norm() * k[i].norm()) for i in range(1, len(q))]
        near = [(one - min(near)) / (max(near) - min(near)) for one in near]
        found = [sum(slopes[c] * v[i, c] for c in range(width)) * near[i - 1] for i in range(1, len(q))]
        return torch.stack(found).clamp(min=0)

    def legrad(self):
        total = 0
        for number in range(len(self.blocks)):
            self.run()
            count = len(self.start)
            heads = self.blocks[number].attn.num_heads

            def answer(_, number=number):
                return self.vector(self.seen[number][3].mean(0)) @ self.text

            patch = torch.zeros(count, dtype=torch.float64)
            for head in range(heads):
                for row in range(count):
                    for column in range(count):
                        slope = self.slope(number, "weights", (head, row, column), answer)
                        patch[column] += slope.clamp(min=0) / (heads * count)
            total = total + patch[1:]
        return total

    def chefer(self):
        self.run()
        weights = [seen[0] for seen in self.seen]
        count, relevance = len(self.start), torch.eye(len(self.start), dtype=torch.float64)
        for number, block in enumerate(self.blocks):
            step = torch.zeros(count, count, dtype=torch.float64)
            for head in range(block.attn.num_heads):
                for row in range(count):
                    for column in range(count):
                        slope = self.slope(
                            number, "weights", (head, row, column), lambda tokens: self.vector(tokens[0]) @ self.text
                        )
                        step[row, column] += (slope * weights[number][head, row, column]).clamp(min=0)
            relevance = relevance + step / block.attn.num_heads @ relevance
        return relevance[0, 1:]

    def surgery(self):
        self.run()
        start = len(self.blocks) // 2
        path = self.seen[start - 1][3] if start else self.start
        for block, (_, qkv, *_) in zip(self.blocks[start:], self.seen[start:]):
            parts = []
            for *_, v in qkv:
                alike = torch.exp(v @ v.T / v.shape[1] ** 0.5)
                parts.append(alike / alike.sum(1, keepdim=True) @ v)
            path = path + torch.cat(parts, dim=1) @ block.attn.out_proj.weight.T + block.attn.out_proj.bias
        return torch.stack([self.vector(token) @ self.text for token in path[1:]])
