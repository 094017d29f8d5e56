/* What both ends need: SHA-1 and base64 for Sec-WebSocket-Accept (RFC 6455, 4.2.2), frame headers, clock. */
#ifndef BENCH_WIRE_H
#define BENCH_WIRE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define KEY_CHARS 24
#define ACCEPT_CHARS 28

static inline uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline void base64(const uint8_t *data, size_t size, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < size; i += 3) {
        uint32_t group = (uint32_t)data[i] << 16;
        if (i + 1 < size) group |= (uint32_t)data[i + 1] << 8;
        if (i + 2 < size) group |= data[i + 2];
        *out++ = digits[group >> 18];
        *out++ = digits[group >> 12 & 63];
        *out++ = i + 1 < size ? digits[group >> 6 & 63] : '=';
        *out++ = i + 2 < size ? digits[group & 63] : '=';
    }
    *out = 0;
}

static inline void sha1_block(uint32_t state[5], const uint8_t *block)
{
#define ROTATED(value, bits) ((value) << (bits) | (value) >> (32 - (bits)))
    uint32_t w[80];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8
               | block[4 * i + 3];
    for (int i = 16; i < 80; i++) w[i] = ROTATED(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (int i = 0; i < 80; i++) {
        uint32_t f, k;
        if (i < 20) f = (b & c) | (~b & d), k = 0x5a827999;
        else if (i < 40) f = b ^ c ^ d, k = 0x6ed9eba1;
        else if (i < 60) f = (b & c) | (b & d) | (c & d), k = 0x8f1bbcdc;
        else f = b ^ c ^ d, k = 0xca62c1d6;
        uint32_t next = ROTATED(a, 5) + f + e + k + w[i];
        e = d, d = c, c = ROTATED(b, 30), b = a, a = next;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e;
#undef ROTATED
}

/* The answer to a Sec-WebSocket-Key of 24 characters: 60 bytes to hash, so two blocks with the padding. */
static inline void accept_of(const char *key, char out[ACCEPT_CHARS + 1])
{
    uint8_t blocks[128] = {0}, digest[20];
    uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    memcpy(blocks, key, KEY_CHARS);
    memcpy(blocks + KEY_CHARS, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36);
    blocks[60] = 0x80;
    blocks[126] = 480 >> 8, blocks[127] = 480 & 255;
    sha1_block(state, blocks);
    sha1_block(state, blocks + 64);
    for (int i = 0; i < 20; i++) digest[i] = (uint8_t)(state[i / 4] >> (24 - 8 * (i % 4)));
    base64(digest, sizeof digest, out);
}

/* Writes the header of a whole frame and returns its length. A masked one has the key zero, so that its
 * payload can be built once and needs no work to send; receivers unmask it as any other. */
static inline size_t frame_header(uint8_t *out, int opcode, uint64_t payload, int masked)
{
    size_t size = 2;
    out[0] = (uint8_t)(0x80 | opcode);
    if (payload < 126) {
        out[1] = (uint8_t)payload;
    } else if (payload < 65536) {
        out[1] = 126, out[2] = (uint8_t)(payload >> 8), out[3] = (uint8_t)payload;
        size = 4;
    } else {
        out[1] = 127;
        for (int i = 0; i < 8; i++) out[2 + i] = (uint8_t)(payload >> (56 - 8 * i));
        size = 10;
    }
    if (masked) {
        out[1] |= 0x80;
        memset(out + size, 0, 4);
        size += 4;
    }
    return size;
}

static inline void die(const char *what)
{
    perror(what);
    exit(1);
}

#endif
