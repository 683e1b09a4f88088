"""Gates on the Q-Former's cross-attention: three ways for style to modulate what its queries read from the image.

style (B, S), question embeds (B, T, E) + mask (B, T) -> PromptMapper -> control tokens (B, M, D)
control tokens (B, M, D) + keys, values (B, N, C) of one layer -> output of the cross-attention (B, Q, C)

    film   K' = (1 + s tanh(w_k c)) K    V' = (1 + s tanh(w_v c)) V + s b c
    gate   K' = 2 sigmoid(s u_k c) K     V' = 2 sigmoid(s u_v c) V
    kv     attention over the image + s * attention over keys and values made of the control tokens

c is the pooled control tokens; s, one trainable number per head or per channel, starts at init_scale. All of w, b, u
and the values of kv start at zero, so that every gate starts as the identity, bit for bit. There is no shift of the
keys: the same vector added to every key adds the same number to all scores of a query, which softmax removes.
"""

from collections.abc import Callable

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers.models.blip_2.modeling_blip_2 import (
    ALL_ATTENTION_FUNCTIONS,
    Blip2QFormerMultiHeadAttention,
    eager_attention_forward,
)

Attend = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # keys, values (B, N, C) -> (B, Q, C)
LORA_TARGETS = r"encoder\.layer\.\d+\.crossattention\.attention\.(key|value)"


class PromptMapper(nn.Module):
    """M learned tokens, with the style added to each, attend once to the words of the question.

    The style is added and not attended to, so that it keeps its weight whatever the length of the question. Words are
    the language model's input embeddings, without positions. The answer is not among them: in training it would leak
    through the gates.
    """

    def __init__(
        self, style_width: int, text_width: int, control_width: int, num_tokens: int, hidden: int, dropout: float
    ):
        super().__init__()
        heads = max(1, hidden // 64)
        if num_tokens < 1 or hidden % heads:
            raise ValueError(
                f"--model.prompt_mapper.num_tokens {num_tokens}, hidden {hidden}: expected 1 or more tokens and a "
                f"width divisible by {heads} heads"
            )
        self.tokens = nn.Parameter(0.5 * torch.randn(num_tokens, hidden))
        self.style = nn.Linear(style_width, hidden)
        self.words = nn.Sequential(nn.LayerNorm(text_width), nn.Linear(text_width, hidden))
        self.norm = nn.LayerNorm(hidden)
        self.attention = nn.MultiheadAttention(hidden, heads, dropout, batch_first=True)
        self.mix = nn.Sequential(
            nn.LayerNorm(hidden),
            nn.Linear(hidden, 2 * hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * hidden, hidden),
        )
        self.output = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, control_width))

    def forward(self, style: torch.Tensor, question: torch.Tensor, question_mask: torch.Tensor) -> torch.Tensor:
        """question_mask: 1 = a token of the question, at least one per row -> (B, M, D)."""
        tokens = self.tokens + self.style(style).unsqueeze(1)  # (B, M, H)
        words = self.words(question)  # (B, T, H)
        attended, _ = self.attention(
            self.norm(tokens), words, words, key_padding_mask=question_mask == 0, need_weights=False
        )
        tokens = tokens + attended
        return self.output(tokens + self.mix(tokens))


class Gate(nn.Module):
    """Base class: the strength s, and the norm of the control tokens."""

    def __init__(self, width: int, control_width: int, heads: int, per_head: bool, init_scale: float):
        super().__init__()
        self.units = heads if per_head else width
        self.channels_per_unit = width // self.units
        self.scale = nn.Parameter(torch.full((self.units,), float(init_scale)))
        self.norm = nn.LayerNorm(control_width)

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """(B, units) -> (B, 1, C): each head's number repeated over its channels."""
        return values.repeat_interleave(self.channels_per_unit, dim=-1).unsqueeze(-2)


class PooledGate(Gate):
    """A gate controlled by one vector: the mean of the control tokens, weighted by a learned query."""

    outputs = 0  # per unit, projected from the control vector

    def __init__(self, width: int, control_width: int, heads: int, per_head: bool, init_scale: float):
        super().__init__(width, control_width, heads, per_head, init_scale)
        self.query = nn.Parameter(torch.zeros(control_width))
        self.project = zero_linear(control_width, self.outputs * self.units)

    def modulation(self, control: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """control (B, M, D) -> `outputs` tensors (B, units)."""
        control = self.norm(control)
        weights = torch.softmax(control @ self.query / control.shape[-1] ** 0.5, dim=-1)  # (B, M)
        pooled = (weights.unsqueeze(-1) * control).sum(-2)  # (B, D)
        return self.project(pooled).chunk(self.outputs, dim=-1)


class FilmGate(PooledGate):
    """Feature-wise scale and shift (Perez et al. 2018); the scale is relative to 1."""

    outputs = 3

    def forward(self, attend: Attend, key: torch.Tensor, value: torch.Tensor, control: torch.Tensor) -> torch.Tensor:
        key_scale, value_scale, shift = self.modulation(control)
        key = key * (1 + self.spread(self.scale * key_scale.tanh()))
        value = value * (1 + self.spread(self.scale * value_scale.tanh())) + self.spread(self.scale * shift)
        return attend(key, value)


class SigmoidGate(PooledGate):
    """A factor from 0 (closed) to 2 (doubled); 1, the identity, at the start."""

    outputs = 2

    def forward(self, attend: Attend, key: torch.Tensor, value: torch.Tensor, control: torch.Tensor) -> torch.Tensor:
        key_gate, value_gate = (2 * torch.sigmoid(self.scale * logits) for logits in self.modulation(control))
        return attend(key * self.spread(key_gate), value * self.spread(value_gate))


class TokenGate(Gate):
    """Additional keys and values, made of the control tokens.

    They have a softmax of their own, as in zero-initialised attention (Zhang et al. 2023, LLaMA-Adapter): in one shared
    with the image, even tokens with zero values would take weight away from it.
    """

    def __init__(self, width: int, control_width: int, heads: int, per_head: bool, init_scale: float):
        super().__init__(width, control_width, heads, per_head, init_scale)
        self.key = nn.Linear(control_width, width, bias=False)  # a bias would have no effect, see above
        self.value = zero_linear(control_width, width)

    def forward(self, attend: Attend, key: torch.Tensor, value: torch.Tensor, control: torch.Tensor) -> torch.Tensor:
        control = self.norm(control)
        return attend(key, value) + self.spread(self.scale) * attend(self.key(control), self.value(control))


GATES = {"film": FilmGate, "gate": SigmoidGate, "kv": TokenGate}


class GatedCrossAttention(Blip2QFormerMultiHeadAttention):
    """The library's cross-attention, with the same weight names, and a gate between its projections and its softmax."""

    def __init__(self, config, gate: Gate):
        super().__init__(config, is_cross_attention=True)
        self.gate = gate

    def forward(
        self,
        hidden_states,
        attention_mask=None,
        encoder_hidden_states=None,
        encoder_attention_mask=None,
        control_tokens=None,
        **kwargs,
    ):
        """hidden_states (B, Q, C), encoder_hidden_states (B, N, V), control_tokens (B, M, D) -> (B, Q, C), None.

        Without control tokens: plain cross-attention.
        """
        query = self._heads(self.query(hidden_states))
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)

        def attend(key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
            output, _ = attention(
                self,
                query,
                self._heads(key),
                self._heads(value),
                None,
                dropout=self.attention_dropout if self.training else 0.0,
                scaling=self.scaling,
            )
            return output.reshape(*output.shape[:2], -1).contiguous()

        key, value = self.key(encoder_hidden_states), self.value(encoder_hidden_states)
        if control_tokens is None:
            return attend(key, value), None
        return self.gate(attend, key, value, control_tokens), None

    def _heads(self, vectors: torch.Tensor) -> torch.Tensor:
        """(B, N, C) -> (B, heads, N, C / heads)."""
        return vectors.unflatten(-1, (-1, self.attention_head_size)).transpose(1, 2)


def add_gates(qformer: nn.Module, kind: str, control_width: int, per_head: bool, init_scale: float) -> list[Gate]:
    """Put one gate into each cross-attention of a Q-Former, in place -> the gates. ValueError for an unknown kind.

    In the published models every second layer has a cross-attention.
    """
    if kind not in GATES:
        raise ValueError(f"--model.gating.type {kind}: expected none, {', '.join(GATES)}")
    gates = []
    for layer in qformer.encoder.layer:
        if not layer.has_cross_attention:
            continue
        plain = layer.crossattention.attention
        gate = GATES[kind](plain.all_head_size, control_width, plain.num_attention_heads, per_head, init_scale)
        gated = GatedCrossAttention(plain.config, gate).to(plain.query.weight.device)
        gated.query, gated.key, gated.value = plain.query, plain.key, plain.value
        layer.crossattention.attention = gated
        gates.append(gate)
    return gates


def add_lora(qformer: nn.Module, rank: int, alpha: float, dropout: float) -> list[LoraLayer]:
    """Trainable adapters (Hu et al. 2022) on W_K and W_V of every cross-attention, in place -> the LoRA layers.

    They start as the identity. peft freezes every other weight of the Q-Former.
    """
    inject_adapter_in_model(
        LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=LORA_TARGETS), qformer
    )
    return [module for module in qformer.modules() if isinstance(module, LoraLayer)]


def zero_linear(inputs: int, outputs: int) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
