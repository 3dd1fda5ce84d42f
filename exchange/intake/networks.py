"""Where requests come from: addresses and networks."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network


def parse_networks(text: str) -> tuple[Network, ...]:
    """Return the networks in a text, separated by blanks; an address alone is a network of one.

    Raises:
        ValueError: one of them is none.
    """
    return tuple(ip_network(part) for part in text.split())


def is_within(remote: str, networks: tuple[Network, ...]) -> bool:
    """Tell whether an address lies in one of the networks; what is no address lies in none."""
    address = parse_address(remote)
    return address is not None and any(address in network for network in networks)


def parse_address(remote: str) -> IPv4Address | IPv6Address | None:
    """Return a peer's address, an IPv4 one in IPv6 clothes as what it is; None for what is none."""
    try:
        address = ip_address(remote)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
