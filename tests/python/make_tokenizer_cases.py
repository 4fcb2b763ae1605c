# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/tokenizer_cases.json: what Hugging Face's tokenizers library (PyPI: tokenizers) makes of small
components and of four tiny tokenizers trained here. Run by hand when a case is added; the tests need no Python."""
import json
import random
import sys

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers, AddedToken

CORPUS = [
    "The lighthouse keeper counted twelve ships, and the twelfth ship was late.",
    "Rain fell on the harbour; the keeper's lamp was lit, the keeper's book was shut.",
    "Can you add 17 and 25? Yes: 17 + 25 = 42. Can you count the ships again?",
    "Where is the late ship? It's in the harbour, it isn't lost, they'll see it.",
    "def count(ships):\n    return len([s for s in ships if s.late])\n",
    "été, naïve, Straße, über; el niño corrió mañana.",
]
TEXTS = [
    "", " ", "a", "The ship", "  two  spaces ", "the keeper's lamp's lit", "can't WON'T we'LL", "x = 17+25;\n\n\tret 42\r\n",
    "été naïve Straße", "e\u0301te\u0301", "日本語のテキスト 漢字", "Привет, мир!", "😀👍🏽 ok", "a\u00a0b\u3000c\u2003d", "١٢٣ ½ ² Ⅷ",
    "Hello…World—dash", "\u180ea\u0085b\u200bc\ufeff", "ﬁne ﬂow ① ™", "İstanbul ſoft", "▁under▁ ▁", "a.b,c!d?e:f", "$5 + 3 < 9 ~ ^ `x`",
    "12345678", "AbcDEFghiJKL", "tab\tand\nnewline", "naïve café's", "नमस्ते दुनिया", "\x00\x01\x7f ctl", "가나다 각", "end ", "ﬁx e\u0301t a/b\u00a0あ 😀\u200d👍 e\u0301\u0301",
]
# Made by SentencePiece from six rules: fi ligature, e + acute, hiragana a -> AB, no-break space, '/' -> nothing, U+1F600.
CHARSMAP = (
    "AAQAAAC4AAAvDQAAAAAAgMwYAgCBBQAADAAAgKAFAAABAACAgQwCAIINAAAGAACArBgCAIEFAAAJAACAn2QCAJh8AgCABQAAAwAAgBMAAAASAAAAFQAAABQAAAAXAAAAFgAAABkAAAAYAAAAGwAAAB"
    "oAAAAdAAAAHAAAAB8AAAAeAAAAIQAAACAAAAAjAAAAIgAAACUAAAAkAAAAJwAAACYAAAApAAAAKAAAACsAAAAqAAAALQAAACwAAAAvAAAALgAAADEAAAAwAAAAMwAAADIAAAA1AAAANAAAADcAAAA2"
    "AAAAOQAAADgAAAA7AAAAOgAAAD0AAAA8AAAAPwAAAD4AAABBAAAAQAAAAEMAAABCAAAARQAAAEQAAABHAAAARgAAAEkAAABIAAAASwAAAGUQAgBNAAAATAAAAE8AAABOAAAAUQAAAFAAAABTAAAAUg"
    "AAAFUAAABUAAAAVwAAAFYAAABZAAAAWAAAAFsAAABaAAAAXQAAAFwAAABfAAAAXgAAAGEAAABgAAAAYwAAAGIAAABlAAAAZAAAAGcAAABmAAAAaQAAAGgAAABrAAAAagAAAG0AAABsAAAAbwAAAG4A"
    "AABxAAAAcAAAAHMAAAByAAAAdQAAAHQAAAB3AAAAdgAAAHkAAAB4AAAAewAAAHoAAAB9AAAAfAAAAH8AAAB+AAAAgQAAAIAAAACDAAAAggAAAIUAAACEAAAAhwAAAIYAAACJAAAAiAAAAIsAAACKAA"
    "AAjQAAAIwAAACPAAAAjgAAAJEAAACQAAAAkwAAAJIAAACVAAAAlAAAAJcAAACWAAAAmQAAAJgAAACbAAAAmgAAAJ0AAACcAAAAnwAAAJ4AAAChAAAAoAAAAKMAAACiAAAApQAAAKQAAACnAAAApgAA"
    "AKkAAACoAAAAqwAAAKoAAACtAAAArAAAAK8AAACuAAAAsQAAALAAAACzAAAAsgAAALUAAAC0AAAAtwAAALYAAAC5AAAAuAAAALsAAAC6AAAAvQAAALwAAAC/AAAAvgAAAMEAAADvmAEAwwAAAMIAAA"
    "DFAAAAxAAAAMcAAADGAAAAyQAAAMgAAADLAAAAygAAAM0AAADjEAEAzwAAAM4AAADRAAAA0AAAANMAAADSAAAA1QAAANQAAADXAAAA1gAAANkAAADYAAAA2wAAANoAAADdAAAA3AAAAPA8AQDeAAAA"
    "4QAAAOAAAADjAAAA4gAAAOUAAADkAAAA5wAAAOYAAADpAAAA6AAAAOsAAADqAAAAwigBAOwAAADvAAAA7gAAAPEAAADwAAAA8wAAAPIAAAD1AAAA9AAAAPcAAAD2AAAA+QAAAPgAAAD7AAAA+gAAAP"
    "0AAAD8AAAA/wAAAP4AAAAAIAA6KQBBQgBmaQDDqQA="
)
NORMALIZERS = [
    {"type": "Precompiled", "precompiled_charsmap": CHARSMAP},
    {"type": "NFC"}, {"type": "NFD"}, {"type": "NFKC"}, {"type": "NFKD"}, {"type": "Lowercase"},
    {"type": "StripAccents"}, {"type": "Nmt"}, {"type": "ByteLevel"},
    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
    {"type": "Replace", "pattern": {"Regex": "\\s+$"}, "content": "!"},
    {"type": "Prepend", "prepend": "▁"},
    {"type": "Strip", "strip_left": True, "strip_right": False}, {"type": "Strip", "strip_left": True, "strip_right": True},
    {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}, {"type": "Lowercase"}]},
    {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
    {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False},
]
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
PRE_TOKENIZERS = (
    [{"type": "ByteLevel", "add_prefix_space": p, "trim_offsets": True, "use_regex": r} for p in (True, False) for r in (True, False)]
    + [{"type": "Split", "pattern": p, "behavior": b, "invert": i} for p in ({"String": " "}, {"Regex": "\\s|[aeiou]"})
       for b in BEHAVIORS for i in (False, True)]
    + [{"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": b, "invert": i} for b, i in (("Isolated", False), ("Removed", True), ("MergedWithNext", False))]
    + [{"type": "Split", "pattern": {"Regex": r}, "behavior": "Isolated", "invert": False} for r in
       ("[一-龥぀-ゟ゠-ヿ]+", "\\p{N}{1,3}", "[^\\S\\n]+", "^\\w+", "\\d(?=(\\d{3})+\\b)", "x*")]
    + [{"type": "Metaspace", "replacement": "▁", "prepend_scheme": s, "split": p} for s in ("always", "first", "never") for p in (True, False)]
    + [{"type": "Digits", "individual_digits": d} for d in (True, False)]
    + [{"type": "Punctuation", "behavior": b} for b in BEHAVIORS]
    + [{"type": "Whitespace"}, {"type": "WhitespaceSplit"}, {"type": "BertPreTokenizer"}, {"type": "CharDelimiterSplit", "delimiter": "e"},
       {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}]},
       {"type": "Sequence", "pretokenizers": [{"type": "Punctuation", "behavior": "Contiguous"}, {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
                                              {"type": "Digits", "individual_digits": False}, {"type": "Split", "pattern": {"Regex": "[0-9][0-9][0-9]"}, "behavior": "Isolated", "invert": False}]}]
)
SP = {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
                                       {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
DECODERS = [
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": True},
    SP, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 1},
    {"type": "Strip", "content": "_", "start": 2, "stop": 0},
    {"type": "Replace", "pattern": {"Regex": "[aeiou]"}, "content": "*"}, {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
    {"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Replace", "pattern": {"String": "ab"}, "content": "<>"}]},
    {"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 2, "stop": 2}]},
    {"type": "WordPiece", "prefix": "##", "cleanup": True}, {"type": "WordPiece", "prefix": "##", "cleanup": False},
    {"type": "BPEDecoder", "suffix": "</w>"},
]
TOKEN_LISTS = [
    ["▁The", "▁ship", "▁", "s"], ["ĠThe", "Ġship", "Ã", "©"], ["Ã", "x", "<|a b|>", "é", "Ġ"], ["<0xE6>", "<0x97>", "<0xA5>", "▁ok"], ["<0xE6>", "<0x97>", "x"],
    ["<0xFF>", "<0xFE>"], ["▁", "▁", "a"], ["▁▁▁", "▁a▁b"], ["play", "##ing", "to", "##day", ".", "it", "'s", "do", "not"], ["lo", "w</w>", "est</w>"],
    ["a", "b", "aa", "b", "a", "b"], ["  ", " a ", "  "], [" ", " ", "b", " ", " ", " "], ["__x_", "_"], ["ab", "a"], ["hello"], [], ["<0x41>", "<0x42>", "▁C"],
]


def attempt(decoder, tokens):
    """The library panics on some inputs (Strip of an empty token): those are no cases."""
    try:
        return decoder.decode(tokens)
    except BaseException:
        return None


def component(kind, config):
    base = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None,
            "decoder": None, "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}
    base[kind] = config
    return getattr(Tokenizer.from_str(json.dumps(base)), kind)


def trained(name, model, trainer, normalizer=None, pre=None, decoder=None):
    tok = Tokenizer(model)
    if normalizer:
        tok.normalizer = normalizer
    if pre:
        tok.pre_tokenizer = pre
    if decoder:
        tok.decoder = decoder
    tok.train_from_iterator(CORPUS * 3, trainer)
    return name, tok


def tokenizers():
    _, t = trained("byte_level", models.BPE(), trainers.BpeTrainer(vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
                   special_tokens=["<|end|>", "<|user|>"]), normalizers.NFC(),
                   pre_tokenizers.Sequence([pre_tokenizers.Split(__import__("tokenizers").Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]),
                   decoders.ByteLevel())
    t.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("    ", normalized=False), AddedToken("ship!", single_word=True, normalized=True)])
    t.add_special_tokens([AddedToken("<|sep|>", lstrip=True, rstrip=True, normalized=False)])
    t.post_processor = processors.TemplateProcessing(single="<|user|> $A <|end|>", special_tokens=[("<|user|>", t.token_to_id("<|user|>")), ("<|end|>", t.token_to_id("<|end|>"))])
    yield "byte_level", t
    bytes_ = ["<0x%02X>" % b for b in range(256)]
    _, t = trained("sentencepiece_bpe", models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True), trainers.BpeTrainer(vocab_size=520, show_progress=False,
                   special_tokens=["<unk>", "<s>", "</s>"] + bytes_), normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None, None)
    d = json.loads(t.to_str())
    d["added_tokens"] = d["added_tokens"][:3]
    d["decoder"] = SP
    t = Tokenizer.from_str(json.dumps(d))
    t.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    yield "sentencepiece_bpe", t
    _, t = trained("unigram", models.Unigram(), trainers.UnigramTrainer(vocab_size=180, unk_token="<unk>", special_tokens=["<unk>", "</s>"], show_progress=False),
                   normalizers.NFKC(), pre_tokenizers.Metaspace(), decoders.Metaspace())
    t.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    yield "unigram", t
    _, t = trained("wordpiece", models.WordPiece(unk_token="[UNK]"), trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False),
                   normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer(), decoders.WordPiece())
    t.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    yield "wordpiece", t
    _, t = trained("word_suffix", models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"), trainers.BpeTrainer(vocab_size=160, end_of_word_suffix="</w>", special_tokens=["<unk>"],
                   show_progress=False), normalizers.Lowercase(), pre_tokenizers.Whitespace(), decoders.BPEDecoder())
    yield "word_suffix", t
    _, t = trained("subword_prefix", models.BPE(unk_token="<unk>", continuing_subword_prefix="##", fuse_unk=True), trainers.BpeTrainer(vocab_size=160, continuing_subword_prefix="##",
                   special_tokens=["<unk>"], show_progress=False), None, pre_tokenizers.WhitespaceSplit(), decoders.WordPiece())
    yield "subword_prefix", t


def main(path):
    rng = random.Random(5)
    pieces = [" ", "  ", "\n", "the ", "ship", "ship!", "keeper", "'s", "é", "e\u0301", "日", "😀", "<tool>", "<|sep|>", "<|end|>", "<s>", "</s>", "<unk>", "<0x41>", "    ", "7", "42", "X", "ſ", "\u00a0", "zq"]
    mixed = ["".join(rng.choice(pieces) for _ in range(rng.randrange(1, 9))) for _ in range(60)]
    out = {"normalizers": [], "pre_tokenizers": [], "decoders": [], "tokenizers": []}
    for config in NORMALIZERS:
        n = component("normalizer", config)
        out["normalizers"].append({"config": config, "cases": [[t, n.normalize_str(t)] for t in TEXTS]})
    for config in PRE_TOKENIZERS:
        p = component("pre_tokenizer", config)
        out["pre_tokenizers"].append({"config": config, "cases": [[t, [piece for piece, _ in p.pre_tokenize_str(t)]] for t in TEXTS if t]})
    for config in DECODERS:
        d = component("decoder", config)
        out["decoders"].append({"config": config, "cases": [[t, attempt(d, t)] for t in TOKEN_LISTS if attempt(d, t) is not None]})
    for name, tok in tokenizers():
        size = tok.get_vocab_size()
        encodings = [[t, tok.encode(t, add_special_tokens=False).ids, tok.encode(t).ids] for t in TEXTS + mixed]
        # An invalid run of byte tokens is replaced as a whole there and byte by byte here, so that valid characters can
        # be streamed at once: such lists are no cases.
        id_lists = [ids for _, _, ids in encodings] + [[rng.randrange(size) for _ in range(rng.randrange(1, 8))] for _ in range(40)]
        out["tokenizers"].append({"name": name, "tokenizer": json.loads(tok.to_str()), "encode": encodings,
                                  "decode": [[ids, tok.decode(ids, skip_special_tokens=False), tok.decode(ids)] for ids in id_lists if ids and "\ufffd" not in tok.decode(ids)]})
    with open(path, "w") as f:
        json.dump(out, f, separators=(",", ":"))
        f.write("\n")


main(sys.argv[1] if len(sys.argv) > 1 else "tests/data/tokenizer_cases.json")
