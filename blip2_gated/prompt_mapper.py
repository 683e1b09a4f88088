"""Prompt mapper: style feature and question to the control tokens of the gates.

style (B, S), question embeds (B, T, E) + mask (B, T) -> control tokens (B, M, D)

Its input is the question alone: with the answer in it, training would leak the answer through the gates.
"""

import torch
from torch import nn


class PromptMapper(nn.Module):
    """M learned tokens, with the style added to each, attend once to the words of the question.

    The style is added and not attended to, so that it keeps its weight whatever the length of the question. Words are
    the language model's input embeddings, without positions.
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
        padding = question_mask == 0
        attended, _ = self.attention(self.norm(tokens), words, words, key_padding_mask=padding, need_weights=False)
        tokens = tokens + attended
        return self.output(tokens + self.mix(tokens))
