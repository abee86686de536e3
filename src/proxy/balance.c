#include "proxy/balance.h"

#include <assert.h>
#include <math.h>

/* How good a candidate is; a worse kind is used only where no better one is left. */
enum fitness { UNFIT, DOWN, FIT };

struct choice {
    const struct tried *tried;
    unsigned connections_max;
    enum fitness wanted;
    bool full; /* one that is wanted lacks nothing but room */
};

static enum fitness fitness_of(struct balancer *balancer, struct choice *choice, unsigned index)
{
    const struct peer *peer = balancer->peers[index].peer;
    enum fitness fitness = peer_up(peer) ? FIT : DOWN;
    if (tried_has(choice->tried, index))
        return UNFIT;
    if (peer_has_room(peer, choice->connections_max))
        return fitness;
    choice->full |= fitness >= choice->wanted;
    return UNFIT;
}

static bool fits(struct balancer *balancer, struct choice *choice, unsigned index)
{
    return fitness_of(balancer, choice, index) >= choice->wanted;
}

static int pick_in_turn(struct balancer *balancer, struct choice *choice)
{
    for (unsigned i = 0; i < balancer->count; i++) {
        unsigned index = balancer->next;
        balancer->next = index + 1 == balancer->count ? 0 : index + 1;
        if (fits(balancer, choice, index))
            return (int)index;
    }
    return -1;
}

/* Smooth weighted round robin: everybody earns its weight, the richest is picked and pays the sum,
 * so that picks of a heavy peer spread evenly. */
static int pick_weighted(struct balancer *balancer, struct choice *choice)
{
    int best = -1;
    int32_t sum = 0;
    for (unsigned i = 0; i < balancer->count; i++) {
        if (!fits(balancer, choice, i))
            continue;
        struct upstream_peer *peer = &balancer->peers[i];
        peer->current += (int32_t)peer->weight;
        sum += (int32_t)peer->weight;
        if (best < 0 || peer->current > balancer->peers[best].current)
            best = (int)i;
    }
    if (best >= 0)
        balancer->peers[best].current -= sum;
    return best;
}

/* Is `a` less loaded than `b`, in proportion to the weights? */
static bool less_loaded(const struct upstream_peer *a, const struct upstream_peer *b)
{
    return (uint64_t)a->peer->active * b->weight < (uint64_t)b->peer->active * a->weight;
}

/* The least loaded; among equals they take turns. */
static int pick_least(struct balancer *balancer, struct choice *choice)
{
    assert(balancer->count > 0);
    int best = -1;
    unsigned index = balancer->next;
    for (unsigned i = 0; i < balancer->count; i++) {
        if ((best < 0 || less_loaded(&balancer->peers[index], &balancer->peers[best])) &&
            fits(balancer, choice, index))
            best = (int)index;
        index = index + 1 == balancer->count ? 0 : index + 1;
    }
    balancer->next = balancer->next + 1 == balancer->count ? 0 : balancer->next + 1;
    return best;
}

static uint64_t next_random(struct balancer *balancer)
{
    uint64_t x = balancer->random; /* xorshift64* */
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    balancer->random = x;
    return x * UINT64_C(0x2545F4914F6CDD1D);
}

/* A peer at random, in proportion to the weights. */
static unsigned draw(struct balancer *balancer)
{
    uint64_t random = next_random(balancer) >> 32;
    if (!balancer->weighted)
        return (unsigned)(random % balancer->count);
    uint64_t sum = 0;
    for (unsigned i = 0; i < balancer->count; i++)
        sum += balancer->peers[i].weight;
    assert(sum > 0);
    unsigned index = 0;
    for (uint64_t left = random % sum; left >= balancer->peers[index].weight; index++)
        left -= balancer->peers[index].weight;
    return index;
}

/* Two at random, the less loaded of them; by turns where neither fits. */
static int pick_random(struct balancer *balancer, struct choice *choice)
{
    unsigned a = draw(balancer);
    unsigned b = draw(balancer);
    bool a_fits = fits(balancer, choice, a);
    bool b_fits = fits(balancer, choice, b);
    if (a_fits && b_fits)
        return (int)(less_loaded(&balancer->peers[b], &balancer->peers[a]) ? b : a);
    if (a_fits || b_fits)
        return (int)(a_fits ? a : b);
    return pick_in_turn(balancer, choice);
}

/* Every bit of the result depends on all of the bits (a finalizer of two rounds). */
static uint64_t mix(uint64_t bits)
{
    bits = (bits ^ bits >> 32) * UINT64_C(0xd6e8feb86659fd93);
    bits = (bits ^ bits >> 32) * UINT64_C(0xd6e8feb86659fd93);
    return bits ^ bits >> 32;
}

static uint64_t hash_bytes(const char *bytes, size_t len)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ (uint8_t)bytes[i]) * UINT64_C(0x100000001b3);
    return mix(hash);
}

static uint64_t key_hash(const struct balancer *balancer, const struct request *request)
{
    if (balancer->hash_header) {
        struct slice value = headers_get(&request->headers, slice_from_cstr(balancer->hash_header));
        return hash_bytes(value.ptr, value.len);
    }
    char ip[ADDRESS_TEXT_MAX];
    size_t len = request->remote ? address_format_host(request->remote, ip) : 0;
    return hash_bytes(ip, len);
}

/* A peer's claim to a key. Dividing by the logarithm of an even draw from (0, 1) is what makes the
 * highest claim fall to each peer in proportion to its weight; multiplying would favour the heavy.
 * Among equals the draw itself decides as well, and is cheaper by far.
 */
static double claim(const struct balancer *balancer, unsigned index, uint64_t key)
{
    const struct upstream_peer *peer = &balancer->peers[index];
    double even = (double)(mix(key ^ peer->hash) >> 11) + 0.5;
    return balancer->weighted ? peer->weight / -log(even / 9007199254740992.0) /* 2^53 */ : even;
}

/* Rendezvous hashing: when a peer goes, only its own keys move. Of a peer that claims less than
 * another nothing else is looked at. */
static int pick_hashed(struct balancer *balancer, struct choice *choice,
                       const struct request *request)
{
    uint64_t key = key_hash(balancer, request);
    double best_claim = -1;
    int best = -1;
    for (unsigned i = 0; i < balancer->count; i++) {
        double own = claim(balancer, i, key);
        if (own > best_claim && fits(balancer, choice, i)) {
            best = (int)i;
            best_claim = own;
        }
    }
    return best;
}

static int pick(struct balancer *balancer, struct choice *choice, const struct request *request)
{
    switch (balancer->rule) {
    case BALANCE_LEAST_CONN:
        return pick_least(balancer, choice);
    case BALANCE_RANDOM:
        return pick_random(balancer, choice);
    case BALANCE_HASH:
        return pick_hashed(balancer, choice, request);
    case BALANCE_ROUND_ROBIN:
        break;
    }
    return balancer->weighted ? pick_weighted(balancer, choice) : pick_in_turn(balancer, choice);
}

int balance_pick(struct balancer *balancer, const struct request *request,
                 const struct tried *tried, unsigned connections_max, bool *full)
{
    struct choice choice = {.tried = tried, .connections_max = connections_max, .wanted = FIT};
    int index = pick(balancer, &choice, request);
    if (index < 0 && !choice.full) {
        choice.wanted = DOWN;
        index = pick(balancer, &choice, request);
    }
    *full = choice.full;
    return index;
}
