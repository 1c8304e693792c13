//! What comes to each example, packet by packet, and what must become of it: state, verdict, rule.
//! `talk` says how a line is written. Reasons stand above the lines that need one.

/// Hosts 192.168.10.20 and 2001:db8:10::20, the server .5, the router .1 and fe80::1.
pub(crate) const EDGE: &str = r#"
    # A host reads a page. The rule for flows that begin is asked once, `known` from then on.
    lan tcp 192.168.10.20:40001 > 203.0.113.7:443 syn     | new accept outbound/any
    wan tcp 203.0.113.7:443 > 192.168.10.20:40001 syn,ack | established accept forward/known
    lan tcp 192.168.10.20:40001 > 203.0.113.7:443 ack     | established accept forward/known tcp=ESTABLISHED timeout=86400
    # A link on the way is too narrow: the error about it is RELATED.
    lan tcp 192.168.10.20:40001 > 203.0.113.7:443 ack "x*1400" | established accept forward/known
    wan icmp 203.0.113.1 > 192.168.10.20 too-long about above  | related accept forward/known
    # A segment that is nowhere near the window.
    wan tcp 203.0.113.7:443 > 192.168.10.20:40001 ack seq+1000000000 | invalid drop forward/broken
    # The same by IPv6, by the same rules.
    lan tcp [2001:db8:10::20]:40001 > [2001:db8:7::7]:443 syn     | new accept outbound/any
    wan tcp [2001:db8:7::7]:443 > [2001:db8:10::20]:40001 syn,ack | established accept forward/known
    # FTP: the control connection is helped, and its data connection RELATED.
    lan tcp 192.168.10.20:40002 > 203.0.113.21:21 syn     | new accept outbound/any helper=ftp
    wan tcp 203.0.113.21:21 > 192.168.10.20:40002 syn,ack | established accept forward/known
    lan tcp 192.168.10.20:40002 > 203.0.113.21:21 ack     | established accept forward/known
    wan tcp 203.0.113.21:21 > 192.168.10.20:40002 psh,ack "220 here\r\n" | established accept forward/known
    lan tcp 192.168.10.20:40002 > 203.0.113.21:21 psh,ack "PASV\r\n"     | established accept forward/known
    wan tcp 203.0.113.21:21 > 192.168.10.20:40002 psh,ack "227 Entering Passive Mode (203,0,113,21,156,64)\r\n" | established accept forward/known
    lan tcp 192.168.10.20:40003 > 203.0.113.21:40000 syn     | related accept forward/known expected
    wan tcp 203.0.113.21:40000 > 192.168.10.20:40003 syn,ack | established accept forward/known expected
    # The middle of a connection that nobody saw begin, and an answer to nothing.
    lan tcp 192.168.10.20:40004 > 203.0.113.7:443 ack     | new drop forward/not-syn no-flow
    wan tcp 203.0.113.9:443 > 192.168.10.20:40005 syn,ack | invalid drop forward/broken no-flow
    # Addresses are given out by the router, and by nobody else.
    lan udp 0.0.0.0:68 > 255.255.255.255:67 "discover"    | new accept forward/dhcp
    wan udp 192.168.10.1:67 > 255.255.255.255:68 "offer"  | new accept forward/dhcp-answer
    wan udp 203.0.113.9:67 > 192.168.10.20:68 "offer"     | new drop inbound/refused no-flow
    lan udp [fe80::20]:546 > [ff02::1:2]:547 "solicit"    | new accept forward/dhcp6
    wan udp [fe80::1]:547 > [fe80::20]:546 "advertise"    | new accept forward/dhcp6-answer
    # What a link with IPv6 needs is not tracked. Neighbour discovery meets no rule.
    lan icmp fe80::20 > ff02::1:ff00:1 neighbour-solicit  | untracked accept bridge/neighbour-discovery no-flow
    wan icmp fe80::1 > ff02::1:ff00:20 neighbour-solicit  | untracked accept bridge/neighbour-discovery no-flow
    lan icmp fe80::20 > ff02::16 listener-report          | untracked accept forward/multicast no-flow
    lan udp [fe80::20]:40001 > [fe80::1]:53 "name?"       | new accept outbound/any
    # Sources that are not ours, and ours from the wrong side.
    lan tcp 192.168.99.9:40001 > 203.0.113.7:443 syn      | new drop outbound/forged no-flow
    wan tcp 192.168.10.30:40001 > 192.168.10.5:80 syn     | new drop inbound/spoofed no-flow
    wan tcp [2001:db8:10::30]:40001 > [2001:db8:10::5]:80 syn | new drop inbound/spoofed no-flow
    # What does not leave the house. The flow never was, so an error about it is RELATED to nothing.
    lan tcp 192.168.10.20:40006 > 203.0.113.25:25 syn     | new reject outbound/smtp no-flow
    wan icmp 203.0.113.25 > 192.168.10.20 port-unreachable about above | invalid drop forward/broken no-flow
    lan tcp 192.168.10.20:40007 > 203.0.113.8:445 syn     | new reject outbound/shares no-flow
    lan udp 192.168.10.20:137 > 203.0.113.8:137 "name?"   | new reject outbound/shares no-flow
    # The server.
    wan tcp 203.0.113.9:50001 > 192.168.10.5:443 syn      | new accept inbound/web
    wan tcp [2001:db8:f::9]:50001 > [2001:db8:10::5]:80 syn | new accept inbound/web
    wan udp 203.0.113.9:51820 > 192.168.10.5:51820 "hello" | new accept inbound/vpn
    # Three connections in three seconds are what a minute brings; another admin has three of his
    # own, and twenty seconds bring one more.
    3 times 1s wan tcp 198.51.100.17:50001 > 192.168.10.5:22 syn | new accept inbound/ssh
    wan tcp 198.51.100.17:50004 > 192.168.10.5:22 syn     | new drop inbound/refused no-flow
    wan tcp 198.51.100.18:50001 > 192.168.10.5:22 syn     | new accept inbound/ssh
    after 20s
    wan tcp 198.51.100.17:50005 > 192.168.10.5:22 syn     | new accept inbound/ssh
    wan tcp 203.0.113.9:50002 > 192.168.10.5:22 syn       | new drop inbound/refused no-flow
    # A /64 is one admin.
    3 times 1ms wan tcp [2001:db8:ad::1]:50001 > [2001:db8:10::5]:22 syn | new accept inbound/ssh
    wan tcp [2001:db8:ad::2]:50001 > [2001:db8:10::5]:22 syn | new drop inbound/refused no-flow
    # Pings: new until one is answered.
    5 times 1ms wan icmp 203.0.113.9 > 192.168.10.5 echo-request | new accept inbound/ping
    wan icmp 203.0.113.9 > 192.168.10.5 echo-request      | new drop inbound/refused
    lan icmp 192.168.10.5 > 203.0.113.9 echo-reply        | established accept forward/known
    wan icmp 203.0.113.9 > 192.168.10.5 echo-request      | established accept forward/known
    wan icmp 2001:db8:f::9 > 2001:db8:10::20 echo-request | new accept inbound/ping
    # The noise of the net.
    wan tcp 203.0.113.9:50003 > 192.168.10.20:3389 syn    | new drop inbound/refused no-flow
    wan tcp [2001:db8:f::9]:50003 > [2001:db8:10::20]:22 syn | new drop inbound/refused no-flow
"#;

/// Servers 203.0.113.80 and on.
pub(crate) const WEB_FARM: &str = r#"
    # A visitor.
    net tcp 192.0.2.10:40001 > 203.0.113.80:443 syn      | new accept web/visitor
    farm tcp 203.0.113.80:443 > 192.0.2.10:40001 syn,ack | established accept forward/known
    net tcp 192.0.2.10:40001 > 203.0.113.80:443 ack      | established accept forward/known timeout=3600
    net tcp [2001:db8:a::10]:40001 > [2001:db8:80::81]:80 syn | new accept web/visitor
    net udp 192.0.2.10:40001 > 203.0.113.81:443 "hello"  | new accept web/visitor
    farm udp 203.0.113.81:443 > 192.0.2.10:40001 "hello" | established accept forward/known
    # What is not for visitors, and what is nothing at all.
    net tcp 192.0.2.10:40002 > 203.0.113.80:22 syn       | new drop visitors/rest no-flow
    net tcp 192.0.2.10:40003 > 203.0.113.88:443 syn      | new drop visitors/rest no-flow
    net tcp 192.0.2.10:40004 > 203.0.113.80:80 ack       | new drop forward/not-syn no-flow
    net tcp 192.0.2.10:40005 > 203.0.113.80:80 syn,fin   | invalid drop forward/broken no-flow
    net icmp 192.0.2.10 > 203.0.113.80 echo-request      | new accept services/ping
    # One who is in a hurry: forty at once, then twenty a second. Others do not feel it.
    40 times 1ms net tcp 192.0.2.66:30000 > 203.0.113.80:80 syn | new accept web/visitor
    net tcp 192.0.2.66:30040 > 203.0.113.80:80 syn       | new drop web/too-fast no-flow
    net tcp 192.0.2.67:30000 > 203.0.113.80:80 syn       | new accept web/visitor
    after 1s
    net tcp 192.0.2.66:30041 > 203.0.113.80:80 syn       | new accept web/visitor
    # One who is patient, and opens two hundred in twelve seconds. The next is one too many; half a
    # minute later those that nobody answered are gone (syn_sent: 20s).
    200 times 60ms net tcp 192.0.2.77:20000 > 203.0.113.80:443 syn | new accept web/visitor
    net tcp 192.0.2.77:20200 > 203.0.113.80:443 syn      | new drop web/hoarder no-flow
    net tcp 192.0.2.78:20000 > 203.0.113.80:443 syn      | new accept web/visitor
    after 30s
    net tcp 192.0.2.77:20201 > 203.0.113.80:443 syn      | new accept web/visitor
    # Monitoring has a port of its own, and is a visitor like others for the rest.
    net tcp 198.51.100.40:40001 > 203.0.113.80:9100 syn  | new accept monitors/web
    net icmp 198.51.100.40 > 203.0.113.80 echo-request   | new accept monitors/ping
    net tcp 198.51.100.40:40002 > 203.0.113.80:22 syn    | new drop visitors/rest no-flow
    # An admin, whose flow may be silent for half a day.
    net tcp 198.51.100.17:40001 > 203.0.113.80:22 syn      | new accept services/ssh
    farm tcp 203.0.113.80:22 > 198.51.100.17:40001 syn,ack | established accept forward/known
    net tcp 198.51.100.17:40001 > 203.0.113.80:22 ack      | established accept forward/known timeout=43200
    # The link itself.
    net icmp fe80::1 > ff02::1:ff00:80 neighbour-solicit | untracked accept bridge/neighbour-discovery no-flow
    farm icmp fe80::80 > ff02::1:ff00:1 neighbour-solicit | untracked accept bridge/neighbour-discovery no-flow
    farm icmp fe80::80 > ff02::16 listener-report | untracked accept forward/multicast no-flow
    # What servers may begin.
    farm udp 203.0.113.80:40001 > 198.51.100.53:53 "name?" | new accept servers/names
    farm tcp [2001:db8:80::80]:40001 > [2001:db8:53::53]:53 syn | new accept servers/names
    farm udp 203.0.113.80:123 > 198.51.100.53:123 "time?" | new accept servers/clock
    farm tcp 203.0.113.80:40001 > 192.0.2.66:6667 syn    | new reject servers/calls-out no-flow
    farm tcp 203.0.113.80:40002 > 198.51.100.60:443 syn  | new reject servers/calls-out no-flow
    # Updates come at night, and one that has begun may end later.
    at 2026-11-21 03:59
    farm tcp 203.0.113.80:40003 > 198.51.100.60:443 syn    | new accept servers/updates
    net tcp 198.51.100.60:443 > 203.0.113.80:40003 syn,ack | established accept forward/known
    farm tcp 203.0.113.80:40003 > 198.51.100.60:443 ack    | established accept forward/known
    at 2026-11-21 04:00
    farm tcp 203.0.113.80:40003 > 198.51.100.60:443 psh,ack "more?" | established accept forward/known
    farm tcp 203.0.113.80:40004 > 198.51.100.60:443 syn    | new reject servers/calls-out no-flow
"#;

/// The server 203.0.113.80. Untracked packets have no flow, whatever they are.
pub(crate) const NOTRACK_WEB: &str = r#"
    # A visitor, from the first packet to the last.
    net tcp 192.0.2.10:40001 > 203.0.113.80:80 syn      | untracked accept visitors/begin no-flow
    farm tcp 203.0.113.80:80 > 192.0.2.10:40001 syn,ack | untracked accept forward/answers no-flow
    net tcp 192.0.2.10:40001 > 203.0.113.80:80 ack      | untracked accept visitors/go-on no-flow
    net tcp 192.0.2.10:40001 > 203.0.113.80:80 psh,ack "GET / HTTP/1.0\r\n\r\n" | untracked accept visitors/go-on no-flow
    farm tcp 203.0.113.80:80 > 192.0.2.10:40001 ack "x*1400" | untracked accept forward/answers no-flow
    # That was too long for a link on the way. The error is INVALID, and the server must learn of it.
    net icmp 192.0.2.1 > 203.0.113.80 too-long about above | invalid accept forward/too-long no-flow
    farm tcp 203.0.113.80:80 > 192.0.2.10:40001 ack "x*1300" | untracked accept forward/answers no-flow
    # Other errors are INVALID too, and TCP does without them; in both directions.
    net icmp 192.0.2.1 > 203.0.113.80 time-exceeded about above | invalid drop forward/broken no-flow
    net tcp 192.0.2.10:40001 > 203.0.113.80:80 fin,ack  | untracked accept visitors/go-on no-flow
    farm icmp 203.0.113.80 > 192.0.2.10 port-unreachable about above | invalid drop forward/broken no-flow
    farm tcp 203.0.113.80:80 > 192.0.2.10:40001 fin,ack | untracked accept forward/answers no-flow
    net tcp 192.0.2.10:40001 > 203.0.113.80:80 ack      | untracked accept visitors/go-on no-flow
    # Nobody remembers that it is over, nor whether anything began: that is the price.
    net tcp 192.0.2.10:40001 > 203.0.113.80:80 ack "x*100" | untracked accept visitors/go-on no-flow
    net tcp 192.0.2.11:50000 > 203.0.113.80:443 ack seq+1000000000 | untracked accept visitors/go-on no-flow
    # The same by IPv6.
    net tcp [2001:db8:a::10]:40001 > [2001:db8:80::80]:443 syn      | untracked accept visitors/begin no-flow
    farm tcp [2001:db8:80::80]:443 > [2001:db8:a::10]:40001 syn,ack | untracked accept forward/answers no-flow
    farm tcp [2001:db8:80::80]:443 > [2001:db8:a::10]:40001 ack "x*1400" | untracked accept forward/answers no-flow
    net icmp 2001:db8:1::1 > 2001:db8:80::80 too-long about above    | invalid accept forward/too-long6 no-flow
    # Flags that no TCP sends, and an answer that the server asked nobody for.
    net tcp 192.0.2.12:40001 > 203.0.113.80:80 none     | untracked drop visitors/no-flags no-flow
    net tcp 192.0.2.12:40001 > 203.0.113.80:80 syn,fin  | untracked drop visitors/syn-fin no-flow
    net tcp 192.0.2.12:40001 > 203.0.113.80:80 syn,rst  | untracked drop visitors/syn-rst no-flow
    net tcp 192.0.2.12:40001 > 203.0.113.80:80 syn,ack  | untracked drop visitors/syn-ack no-flow
    # One who is in a hurry.
    40 times 1ms net tcp 192.0.2.66:30000 > 203.0.113.80:443 syn | untracked accept visitors/begin no-flow
    net tcp 192.0.2.66:30040 > 203.0.113.80:443 syn     | untracked drop visitors/too-fast no-flow
    net tcp 192.0.2.67:30000 > 203.0.113.80:443 syn     | untracked accept visitors/begin no-flow
    # The server, taken over, begins a connection from the port whose answers are let out.
    farm tcp 203.0.113.80:80 > 192.0.2.99:25 syn        | untracked drop forward/no-answer no-flow
    # The link itself.
    net icmp fe80::1 > ff02::1:ff00:80 neighbour-solicit | untracked accept bridge/neighbour-discovery no-flow
    farm icmp fe80::80 > ff02::1:ff00:1 neighbour-solicit | untracked accept bridge/neighbour-discovery no-flow
    farm icmp fe80::80 > ff02::16 listener-report | untracked accept forward/multicast no-flow
    # What is tracked as ever.
    net tcp 198.51.100.17:40001 > 203.0.113.80:22 syn      | new accept forward/ssh tcp=SYN_SENT
    farm tcp 203.0.113.80:22 > 198.51.100.17:40001 syn,ack | established accept forward/known tcp=SYN_RECV
    net tcp 198.51.100.17:40002 > 203.0.113.80:22 ack      | new drop forward/not-syn no-flow
    net tcp 192.0.2.10:40002 > 203.0.113.80:22 syn         | new drop forward/policy no-flow
    net icmp 192.0.2.10 > 203.0.113.80 echo-request        | new accept forward/ping
    farm icmp 203.0.113.80 > 192.0.2.10 echo-reply         | established accept forward/known
    farm udp 203.0.113.80:40001 > 198.51.100.53:53 "name?" | new accept forward/names
    net udp 198.51.100.53:53 > 203.0.113.80:40001 "there"  | established accept forward/known
    farm udp 203.0.113.80:123 > 198.51.100.53:123 "time?"  | new accept forward/clock
"#;

/// It begins on a Friday at 12:00 UTC, which is 13:00 in Berlin.
pub(crate) const STRICT: &str = r#"
    # An operator at the portal.
    outer tcp 192.0.2.33:40001 > 10.20.1.10:443 syn     | new accept inbound/portal
    inner tcp 10.20.1.10:443 > 192.0.2.33:40001 syn,ack | established accept forward/known
    outer tcp 192.0.2.33:40001 > 10.20.1.10:443 ack     | established accept forward/known tcp=ESTABLISHED timeout=3600
    outer tcp [2001:db8:32::5]:40001 > [2001:db8:20:1::10]:443 syn | new accept inbound/portal
    # Out of the window; and the middle of a connection, which began before this box did.
    outer tcp 192.0.2.33:40001 > 10.20.1.10:443 ack seq+1000000000 | invalid drop forward/broken
    outer tcp 192.0.2.33:40002 > 10.20.1.10:443 ack     | invalid drop forward/broken no-flow
    outer tcp 192.0.2.33:40003 > 10.20.1.10:443 syn,ack | invalid drop forward/broken no-flow
    # Errors about a flow pass; that a router would have its segments elsewhere does not.
    inner tcp 10.20.1.10:443 > 192.0.2.33:40001 ack "x*1400" | established accept forward/known
    outer icmp 192.0.2.1 > 10.20.1.10 too-long about above   | related accept forward/errors
    inner tcp 10.20.1.10:443 > 192.0.2.33:40001 ack "x*100"  | established accept forward/known
    outer icmp 192.0.2.1 > 10.20.1.10 redirect about above   | related drop forward/unasked
    # Three fragments: two are held, the third speaks for the datagram.
    outer udp 192.0.2.33:500 > 10.20.1.10:500 pieces "x*1200" | new drop forward/pieces no-flow
    # The link itself.
    outer icmp fe80::1 > ff02::1:ff00:80 neighbour-solicit | untracked accept bridge/neighbour-discovery no-flow
    inner icmp fe80::80 > ff02::1:ff00:1 neighbour-solicit | untracked accept bridge/neighbour-discovery no-flow
    inner icmp fe80::80 > ff02::16 listener-report | untracked accept forward/multicast no-flow
    # The wrong side.
    inner tcp 10.99.0.1:40001 > 192.0.2.90:8883 syn     | new drop forward/forged no-flow
    outer tcp 10.20.1.11:40001 > 10.20.1.10:443 syn     | new drop forward/spoofed no-flow
    # What may leave, from whom, and to where. The rule's own timeout is for this flow alone.
    inner tcp 10.20.1.20:40001 > 192.0.2.90:8883 syn     | new accept outbound/readings
    outer tcp 192.0.2.90:8883 > 10.20.1.20:40001 syn,ack | established accept forward/known
    inner tcp 10.20.1.20:40001 > 192.0.2.90:8883 ack     | established accept forward/known timeout=43200
    inner tcp 10.20.1.21:40001 > 192.0.2.90:8883 syn     | new drop forward/policy no-flow
    inner tcp 10.20.1.20:40002 > 192.0.2.90:22 syn       | new drop forward/policy no-flow
    inner udp 10.20.1.20:123 > 192.0.2.53:123 "time?"    | new accept outbound/clock timeout=10
    inner udp [2001:db8:20:1::20]:40001 > [2001:db8:53::53]:53 "name?" | new accept outbound/names
    # Four pings at once, and two a second.
    4 times 1ms outer icmp 192.0.2.33 > 10.20.1.10 echo-request | new accept inbound/ping
    outer icmp 192.0.2.33 > 10.20.1.10 echo-request      | new drop forward/policy
    # Fifty flows of one host are enough, even to where it may go; unanswered, they live ten seconds.
    50 times 10ms inner udp 10.20.7.7:20000 > 192.0.2.53:53 "name?" | new accept outbound/names
    inner udp 10.20.7.7:20050 > 192.0.2.53:53 "name?"    | new drop forward/scans no-flow
    after 11s
    inner udp 10.20.7.7:20051 > 192.0.2.53:53 "name?"    | new accept outbound/names
    # At seven in the evening the portal closes for who is not in yet; and it does on Saturdays.
    at 2026-11-20 17:59
    outer tcp 192.0.2.34:40001 > 10.20.1.10:443 syn      | new accept inbound/portal
    inner tcp 10.20.1.10:443 > 192.0.2.34:40001 syn,ack  | established accept forward/known
    outer tcp 192.0.2.34:40001 > 10.20.1.10:443 ack      | established accept forward/known
    at 2026-11-20 18:00
    outer tcp 192.0.2.34:40001 > 10.20.1.10:443 psh,ack "more?" | established accept forward/known
    outer tcp 192.0.2.34:40002 > 10.20.1.10:443 syn      | new drop forward/policy no-flow
    at 2026-11-21 10:00
    outer tcp 192.0.2.34:40003 > 10.20.1.10:443 syn      | new drop forward/policy no-flow
"#;

/// Customers a and b, who both have 10.1.0.10.
pub(crate) const DATACENTRE: &str = r#"
    # The blocklist, in both families and both ways.
    core-a tcp 203.0.113.66:40001 > 10.1.0.10:443 syn  | new drop forward/blocked no-flow
    core-b tcp 198.19.255.255:40001 > 10.1.0.10:443 syn | new drop forward/blocked no-flow
    core-a tcp [2001:db8:bad::1]:40001 > [2001:db8:a1::10]:443 syn | new drop forward/blocked no-flow
    rack-a tcp 10.1.4.10:40001 > 203.0.113.201:443 syn | new reject forward/blocked-to no-flow
    # One client, one address, two customers: two flows, each by its own timeouts.
    core-a tcp 192.0.2.10:40001 > 10.1.0.10:443 syn     | new accept inbound/front
    rack-a tcp 10.1.0.10:443 > 192.0.2.10:40001 syn,ack | established accept forward/known
    core-a tcp 192.0.2.10:40001 > 10.1.0.10:443 ack     | established accept forward/known timeout=7200
    core-b tcp 192.0.2.10:40001 > 10.1.0.10:443 syn     | new accept second/api
    rack-b tcp 10.1.0.10:443 > 192.0.2.10:40001 syn,ack | established accept forward/known
    core-b tcp 192.0.2.10:40001 > 10.1.0.10:443 ack     | established accept forward/known timeout=600
    core-a tcp [2001:db8:9::1]:40001 > [2001:db8:a1::10]:443 syn | new accept inbound/front
    # Two hundred at once are what one front end takes; the others have their own share.
    200 times 0ms core-a tcp 192.0.2.20:20000 > 10.1.0.11:443 syn | new accept inbound/front
    1 times 0ms core-a tcp 192.0.2.20:20200 > 10.1.0.11:443 syn   | new reject inbound/front-busy no-flow
    core-a tcp 192.0.2.20:20200 > 10.1.0.12:443 syn     | new accept inbound/front
    # A pool of connections, which may be silent for a day.
    core-a tcp 10.1.4.10:40001 > 10.1.8.5:5432 syn      | new accept inbound/pool
    rack-a tcp 10.1.8.5:5432 > 10.1.4.10:40001 syn,ack  | established accept forward/known
    core-a tcp 10.1.4.10:40001 > 10.1.8.5:5432 ack      | established accept forward/known timeout=86400
    core-a tcp 192.0.2.10:40002 > 10.1.8.5:5432 syn     | new drop forward/policy no-flow
    # Admins.
    core-a tcp 10.255.0.5:40001 > 10.1.8.5:22 syn       | new accept admins/ssh
    core-a icmp 10.255.0.5 > 10.1.8.5 echo-request      | new accept admins/ping
    core-a tcp 10.255.0.5:40002 > 10.1.8.5:23 syn       | new drop forward/policy no-flow
    # A machine boots: TFTP answers from another port, which only the helper knows to be its own.
    rack-a udp 10.1.4.10:2001 > 10.255.1.10:69 "\0\1kernel\0octet\0" | new accept outbound/boot helper=tftp
    core-a udp 10.255.1.10:3001 > 10.1.4.10:2001 "\0\3\0\1data"      | related accept forward/known expected
    rack-a udp 10.1.4.10:2001 > 10.255.1.10:3001 "\0\4\0\1"          | established accept forward/known expected
    core-a udp 10.255.1.10:3002 > 10.1.4.10:2001 "\0\3\0\1data"      | new drop forward/policy no-flow
    # A backup by FTP. The server announces itself, which is believed, and then another host.
    rack-a tcp 10.1.4.10:40010 > 10.255.1.20:21 syn     | new accept outbound/backup helper=ftp
    core-a tcp 10.255.1.20:21 > 10.1.4.10:40010 syn,ack | established accept forward/known
    rack-a tcp 10.1.4.10:40010 > 10.255.1.20:21 ack     | established accept forward/known
    core-a tcp 10.255.1.20:21 > 10.1.4.10:40010 psh,ack "220 here\r\n" | established accept forward/known
    rack-a tcp 10.1.4.10:40010 > 10.255.1.20:21 psh,ack "PASV\r\n"     | established accept forward/known
    core-a tcp 10.255.1.20:21 > 10.1.4.10:40010 psh,ack "227 Entering Passive Mode (10,255,1,20,156,64)\r\n" | established accept forward/known
    rack-a tcp 10.1.4.10:40011 > 10.255.1.20:40000 syn  | related accept forward/known expected
    rack-a tcp 10.1.4.10:40010 > 10.255.1.20:21 psh,ack "PASV\r\n"     | established accept forward/known
    core-a tcp 10.255.1.20:21 > 10.1.4.10:40010 psh,ack "227 Entering Passive Mode (10,255,1,99,156,65)\r\n" | established accept forward/known
    rack-a tcp 10.1.4.10:40012 > 10.255.1.99:40001 syn  | new drop forward/policy no-flow
    # What racks may ask for, of a and of b.
    rack-a udp 10.1.4.10:40001 > 10.255.1.53:53 "name?" | new accept outbound/services timeout=15
    rack-b udp 10.1.4.10:40001 > 10.255.1.53:53 "name?" | new drop forward/policy no-flow
    rack-b udp 10.1.4.10:40001 > 10.1.0.99:4317 "42"    | new accept second/telemetry timeout=5
    # The link itself.
    core-b icmp fe80::1 > ff02::1:ff00:80 neighbour-solicit | untracked accept bridge/neighbour-discovery no-flow
    rack-b icmp fe80::80 > ff02::1:ff00:1 neighbour-solicit | untracked accept bridge/neighbour-discovery no-flow
    rack-b icmp fe80::80 > ff02::16 listener-report | untracked accept forward/multicast no-flow
    # Nothing that anybody began.
    core-a tcp 192.0.2.10:40003 > 10.1.0.10:443 syn,ack | invalid drop forward/broken no-flow
    core-a tcp 192.0.2.10:40004 > 10.1.0.10:443 ack     | new drop forward/not-syn no-flow
"#;
