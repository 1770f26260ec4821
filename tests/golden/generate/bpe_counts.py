"""BPE in plain Python from the definition, slow: what each merge counts, which sentencepiece's model does not tell."""
import collections
import heapq


def pairs_of(word):
    """All neighbours: a run of n equal symbols holds n - 1 pairs, of which a merge takes every second one."""
    return collections.Counter(zip(word, word[1:]))


def merged(word, left, right):
    out, i = [], 0
    while i < len(word):
        if i + 1 < len(word) and word[i] == left and word[i + 1] == right:
            out.append(left + right)
            i += 2
        else:
            out.append(word[i])
            i += 1
    return out


def train(runs, merges, longest):
    """[(piece, count)]: the most frequent pair; of equals the one of fewer characters, then of smaller bytes."""
    words, weights = [], []
    counts, where = collections.Counter(), collections.defaultdict(set)
    for run, n in runs.items():
        words.append(list(run))
        weights.append(n)
        for pair, times in pairs_of(words[-1]).items():
            counts[pair] += n * times
            where[pair].add(len(words) - 1)
    order = lambda pair: (-counts[pair], len(pair[0]) + len(pair[1]), (pair[0] + pair[1]).encode(), pair)
    heap = [order(pair) for pair in counts if len(pair[0]) + len(pair[1]) <= longest]
    heapq.heapify(heap)
    made, known = [], set()
    while len(made) < merges and heap:
        entry = heapq.heappop(heap)
        pair = entry[3]
        if counts[pair] <= 0 or pair[0] + pair[1] in known:
            continue
        if -entry[0] != counts[pair]:
            heapq.heappush(heap, order(pair))
            continue
        made.append((pair[0] + pair[1], counts[pair]))
        known.add(pair[0] + pair[1])
        changed = collections.Counter()
        for index in where.pop(pair):
            before = pairs_of(words[index])
            if pair not in before:
                continue
            words[index] = merged(words[index], *pair)
            after = pairs_of(words[index])
            for other in before.keys() | after.keys():
                changed[other] += weights[index] * (after[other] - before[other])
                if after[other]:
                    where[other].add(index)
        for other, difference in changed.items():
            counts[other] += difference
            if difference > 0 and len(other[0]) + len(other[1]) <= longest:
                heapq.heappush(heap, order(other))
    return made
