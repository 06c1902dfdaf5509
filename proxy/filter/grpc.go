package filter

// GRPCStatus maps an HTTP status to a gRPC one (gRPC's http-grpc-status-mapping, as Envoy).
func GRPCStatus(status int) int {
	switch status {
	case 200:
		return 0
	case 400:
		return 13
	case 401:
		return 16
	case 403:
		return 7
	case 404:
		return 12
	case 429, 502, 503, 504:
		return 14
	}
	return 2
}

// AppendGRPCMessage appends a grpc-message that says msg (gRPC over HTTP/2, Percent-Encoded).
func AppendGRPCMessage(dst, msg []byte) []byte {
	const hex = "0123456789ABCDEF"
	for _, c := range msg {
		if c >= ' ' && c <= '~' && c != '%' {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		}
	}
	return dst
}
