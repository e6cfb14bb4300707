"""What a broken checkpoint still gives: mending what the examination found damaged.

Recovery reads beside the strict reader and never loosens it. Its modules, from the ground up:

    recipe, mended     how one payload is got back, and what became of it
    images             lost tensors in any other bytes
    siblings           other checkpoints as evidence
    expectations       numbers that something beside the checksum says
    matches            bytes elsewhere that have the checksum
    inferences         bytes that follow from the checksum; string_flips, those of strings
    mend               all of them, the surest first
    result, recover    what the caller gets
    evidence, rebuild  files of any kind; a lost index made anew
    conversions, returns, stripes, statistics
                       text and stripes undone; pieces that look wrong
"""
