/* See shim.h. Nothing here runs for each packet of the steady state except vsw_mbuf_free for
 * packets that are dropped and vsw_mbuf_copy for packets that leave by several ports. */
#define _GNU_SOURCE
#define ALLOW_EXPERIMENTAL_API

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_dev.h>
#include <rte_bus.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

#include "shim.h"

int
vsw_log_redirect(vsw_log_writer writer)
{
    cookie_io_functions_t io = { .write = writer };
    FILE *f = fopencookie(NULL, "w", io);

    if (f == NULL) {
        return -errno;
    }
    /* Whole messages: rte_log flushes after each. */
    if (rte_openlog_stream(f) != 0) {
        fclose(f);
        return -EINVAL;
    }
    return 0;
}

int
vsw_errno(void)
{
    return rte_errno;
}

uint32_t
vsw_lcore_id(void)
{
    return rte_lcore_id();
}

void
vsw_mbuf_free(struct rte_mbuf *m)
{
    rte_pktmbuf_free(m);
}

void
vsw_mbuf_free_bulk(struct rte_mbuf **m, unsigned int n)
{
    rte_pktmbuf_free_bulk(m, n);
}

static struct rte_mbuf *
copy_flat(const struct rte_mbuf *m)
{
    struct rte_mbuf *c = rte_pktmbuf_alloc(m->pool);

    if (c == NULL) {
        return NULL;
    }
    /* The same headroom as the original, so that the same headers can be pushed. */
    c->data_off = m->data_off;
    c->data_len = m->data_len;
    c->pkt_len = m->pkt_len;
    c->port = m->port;
    c->ol_flags = m->ol_flags;
    c->packet_type = m->packet_type;
    c->hash = m->hash;
    c->vlan_tci = m->vlan_tci;
    c->vlan_tci_outer = m->vlan_tci_outer;
    c->tx_offload = m->tx_offload;
    memcpy(rte_pktmbuf_mtod(c, void *), rte_pktmbuf_mtod(m, const void *), m->data_len);
    return c;
}

struct rte_mbuf *
vsw_mbuf_copy(const struct rte_mbuf *m)
{
    if (m->nb_segs == 1 && !RTE_MBUF_HAS_EXTBUF(m)) {
        return copy_flat(m);
    }
    return rte_pktmbuf_copy(m, m->pool, 0, UINT32_MAX);
}

struct rte_mbuf *
vsw_mbuf_from_bytes(struct rte_mempool *pool, const void *data, uint32_t len)
{
    struct rte_mbuf *m = rte_pktmbuf_alloc(pool);

    if (m == NULL) {
        return NULL;
    }
    if (len > rte_pktmbuf_tailroom(m)) {
        rte_pktmbuf_free(m);
        return NULL;
    }
    m->data_len = (uint16_t) len;
    m->pkt_len = len;
    memcpy(rte_pktmbuf_mtod(m, void *), data, len);
    return m;
}

int
vsw_port_by_devargs(const char *devargs, uint16_t *port)
{
    struct rte_dev_iterator it;
    int error = rte_eth_iterator_init(&it, devargs);

    if (error != 0) {
        return error;
    }
    *port = rte_eth_iterator_next(&it);
    if (*port == RTE_MAX_ETHPORTS) {
        return -ENODEV;
    }
    rte_eth_iterator_cleanup(&it);
    return 0;
}

static struct rte_device *
device_of(uint16_t port)
{
    struct rte_eth_dev_info info;

    return rte_eth_dev_info_get(port, &info) == 0 ? info.device : NULL;
}

int
vsw_port_same_device(uint16_t a, uint16_t b)
{
    struct rte_device *dev = device_of(a);

    return dev != NULL && device_of(b) == dev;
}

int
vsw_port_close(uint16_t port, int detach)
{
    struct rte_device *dev = device_of(port);
    int error = rte_eth_dev_close(port);

    if (detach && dev != NULL) {
        error = rte_dev_remove(dev);
    }
    return error;
}

const char *
vsw_port_bus(uint16_t port, const char **info)
{
    const struct rte_device *dev = device_of(port);
    const struct rte_bus *bus = dev != NULL ? rte_dev_bus(dev) : NULL;

    *info = dev != NULL ? rte_dev_bus_info(dev) : NULL;
    return bus != NULL ? rte_bus_name(bus) : NULL;
}

int
vsw_port_link(uint16_t port, uint32_t *mbps, int *up, int *full_duplex, int *autoneg)
{
    struct rte_eth_link link;
    int error;

    memset(&link, 0, sizeof link);
    error = rte_eth_link_get_nowait(port, &link);
    *mbps = link.link_speed;
    *up = link.link_status == RTE_ETH_LINK_UP;
    *full_duplex = link.link_duplex == RTE_ETH_LINK_FULL_DUPLEX;
    *autoneg = link.link_autoneg == RTE_ETH_LINK_AUTONEG;
    return error;
}

/* Runs `body` with a stream `f` into a string and returns the string. */
#define INTO_STRING(body)                                   \
    char *text = NULL;                                      \
    size_t len = 0;                                         \
    FILE *f = open_memstream(&text, &len);                  \
                                                            \
    if (f == NULL) {                                        \
        return NULL;                                        \
    }                                                       \
    body;                                                   \
    fclose(f);                                              \
    return text

char *
vsw_dump_lcores(void)
{
    INTO_STRING(rte_lcore_dump(f));
}

char *
vsw_dump_malloc_stats(void)
{
    INTO_STRING(rte_malloc_dump_stats(f, NULL));
}

char *
vsw_dump_log_levels(void)
{
    INTO_STRING(rte_log_dump(f));
}

char *
vsw_dump_mempool(struct rte_mempool *pool)
{
    INTO_STRING(rte_mempool_dump(f, pool));
}

char *
vsw_dump_all_mempools(void)
{
    INTO_STRING(rte_mempool_list_dump(f));
}
