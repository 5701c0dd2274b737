"""The paper's table 7 (Xu et al., NAACL 2025) as observed orders: what `preceptor.agree` is tested on.

AP is the mean of AlpacaEval 2's length-controlled win rate (LC) and Arena-Hard's (AH). There
are nineteen teachers: GPT-4 has no row.
"""

TEACHERS = (
    "Phi-3-mini-128k-instruct", "Phi-3-small-128k-instruct", "Phi-3-medium-128k-instruct",
    "Gemma-2-2b-it", "Gemma-2-9b-it", "Gemma-2-27b-it",
    "Llama-3-8B-Instruct", "Llama-3-70B-Instruct",
    "Llama-3.1-8B-Instruct", "Llama-3.1-70B-Instruct", "Llama-3.1-405B-Instruct",
    "Qwen2-1.5B-Instruct", "Qwen2-7B-Instruct", "Qwen2-72B-Instruct",
    "Qwen2.5-3B-Instruct", "Qwen2.5-7B-Instruct", "Qwen2.5-14B-Instruct",
    "Qwen2.5-32B-Instruct", "Qwen2.5-72B-Instruct",
)  # fmt: skip

LC = {
    "Qwen2-1.5B": """
        2.85 2.98 2.18 4.16 5.60 4.99 2.64 3.10 2.10 2.74 2.36
        2.68 3.47 2.82 4.50 5.66 4.38 4.96 5.83
    """,
    "Gemma 2-2B": """
        5.90 5.89 3.99 12.93 12.51 13.09 5.70 7.13 5.63 7.32 7.11
        1.91 6.45 5.46 6.84 10.94 7.53 8.77 13.85
    """,
    "Qwen2.5-3B": """
        7.22 7.29 5.49 9.58 13.78 10.18 7.85 9.37 7.22 8.94 8.59
        2.54 7.98 6.59 14.79 11.89 10.28 11.65 16.41
    """,
    "Llama-3.2-3B": """
        4.11 2.95 2.37 7.49 10.60 9.79 3.79 4.52 3.17 5.19 5.17
        1.28 5.41 4.49 5.11 6.63 5.92 6.32 9.99
    """,
    "Llama-3.1-Minitron-4B": """
        5.74 6.61 4.31 10.37 16.13 12.34 4.80 8.93 6.96 8.52 9.23
        2.03 7.31 8.11 9.17 11.12 10.89 11.13 17.77
    """,
}  # fmt: skip

AH = {
    "Qwen2-1.5B": """
        1.8 1.8 1.2 4.4 5.2 4.5 1.9 2.6 2.2 2.8 2.4
        1.0 3.3 1.8 2.6 4.3 4.4 3.7 4.8
    """,
    "Gemma 2-2B": """
        3.3 4.1 2.6 12.9 9.3 9.9 5.2 5.6 4.9 5.8 5.8
        0.9 5.7 3.4 6.5 7.1 8.4 6.9 9.6
    """,
    "Qwen2.5-3B": """
        10.5 11.0 8.3 11.8 19.4 19.6 9.7 11.4 10.9 13.8 12.7
        2.1 14.4 10.6 24.8 20.4 17.9 19.9 21.2
    """,
    "Llama-3.2-3B": """
        3.3 4.1 2.6 9.0 10.9 8.5 5.1 6.5 3.6 5.7 5.3
        0.6 5.6 4.0 7.2 9.8 9.5 8.9 10.8
    """,
    "Llama-3.1-Minitron-4B": """
        3.9 4.5 3.6 10.7 11.0 11.9 4.7 6.0 6.0 5.6 6.2
        0.9 6.4 5.1 8.3 9.2 11.1 10.2 12.2
    """,
}  # fmt: skip


def average_performance() -> dict[str, dict[str, float]]:
    """Return student -> teacher -> AP, not rounded."""
    return {
        student: {
            teacher: (float(lc) + float(ah)) / 2
            for teacher, lc, ah in zip(
                TEACHERS, LC[student].split(), AH[student].split(), strict=True
            )
        }
        for student in LC
    }
