/* What the switch uses of DPDK, as bindgen reads it (src/dpdk-sys/build.rs).
 *
 * Names that are macros in C (and so invisible to bindgen), and offsets that Rust mirrors, are
 * given as constants with the prefix VSW_. */
#ifndef VSW_WRAPPER_H
#define VSW_WRAPPER_H

#include <stddef.h>
#include <stdint.h>

#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_version.h>

#include "shim.h"

/* Layout of struct rte_mbuf, mirrored by packet::Mbuf. */
enum vsw_mbuf_layout {
    VSW_MBUF_SIZE = sizeof(struct rte_mbuf),
    VSW_MBUF_OFF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr),
    VSW_MBUF_OFF_BUF_IOVA = offsetof(struct rte_mbuf, buf_iova),
    VSW_MBUF_OFF_DATA_OFF = offsetof(struct rte_mbuf, data_off),
    VSW_MBUF_OFF_REFCNT = offsetof(struct rte_mbuf, refcnt),
    VSW_MBUF_OFF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs),
    VSW_MBUF_OFF_PORT = offsetof(struct rte_mbuf, port),
    VSW_MBUF_OFF_OL_FLAGS = offsetof(struct rte_mbuf, ol_flags),
    VSW_MBUF_OFF_PACKET_TYPE = offsetof(struct rte_mbuf, packet_type),
    VSW_MBUF_OFF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len),
    VSW_MBUF_OFF_DATA_LEN = offsetof(struct rte_mbuf, data_len),
    VSW_MBUF_OFF_VLAN_TCI = offsetof(struct rte_mbuf, vlan_tci),
    VSW_MBUF_OFF_RSS = offsetof(struct rte_mbuf, hash.rss),
    VSW_MBUF_OFF_VLAN_TCI_OUTER = offsetof(struct rte_mbuf, vlan_tci_outer),
    VSW_MBUF_OFF_BUF_LEN = offsetof(struct rte_mbuf, buf_len),
    VSW_MBUF_OFF_POOL = offsetof(struct rte_mbuf, pool),
    VSW_MBUF_OFF_NEXT = offsetof(struct rte_mbuf, next),
    VSW_MBUF_OFF_TX_OFFLOAD = offsetof(struct rte_mbuf, tx_offload),
    VSW_MBUF_OFF_SHINFO = offsetof(struct rte_mbuf, shinfo),
    VSW_MBUF_OFF_PRIV_SIZE = offsetof(struct rte_mbuf, priv_size),
    VSW_MBUF_OFF_TIMESYNC = offsetof(struct rte_mbuf, timesync),
    VSW_MBUF_OFF_DYNFIELD1 = offsetof(struct rte_mbuf, dynfield1),
};

static const uint64_t VSW_RX_RSS_HASH = RTE_MBUF_F_RX_RSS_HASH;
static const uint64_t VSW_RSS_HF = RTE_ETH_RSS_IP | RTE_ETH_RSS_UDP | RTE_ETH_RSS_TCP;
static const uint64_t VSW_RX_OFFLOAD_CHECKSUM =
    RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_TCP_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
static const uint64_t VSW_RX_OFFLOAD_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
static const uint32_t VSW_DEV_INTR_LSC = RTE_ETH_DEV_INTR_LSC;
static const uint32_t VSW_MBUF_HEADROOM = RTE_PKTMBUF_HEADROOM;
static const uint32_t VSW_MEMPOOL_CACHE = RTE_MEMPOOL_CACHE_MAX_SIZE;
static const uint32_t VSW_MAX_ETHPORTS = RTE_MAX_ETHPORTS;
static const uint32_t VSW_CACHE_LINE = RTE_CACHE_LINE_SIZE;

#endif
