package main

// telnetParser takes telnet apart, in pieces of any size: data for the guest
// comes out, commands go to the functions.
type telnetParser struct {
	state  int
	verb   byte
	buffer []byte // of a suboption
}

const (
	plain = iota
	afterIAC
	afterVerb
	inSub
	inSubAfterIAC

	maxSuboption = 4096
)

func (t *telnetParser) feed(raw []byte, command func(verb, option byte) error, sub func(option byte, data []byte) error) ([]byte, error) {
	var data []byte
	for _, b := range raw {
		var err error
		switch t.state {
		case plain:
			if b == telnetIAC {
				t.state = afterIAC
			} else {
				data = append(data, b)
			}
		case afterIAC:
			t.state = plain
			switch {
			case b == telnetIAC:
				data = append(data, b)
			case b == telnetSB:
				t.state, t.buffer = inSub, nil
			case b >= telnetWILL:
				t.state, t.verb = afterVerb, b
			}
		case afterVerb:
			t.state = plain
			err = command(t.verb, b)
		case inSub:
			if b == telnetIAC {
				t.state = inSubAfterIAC
			} else if len(t.buffer) < maxSuboption {
				t.buffer = append(t.buffer, b)
			}
		case inSubAfterIAC:
			t.state = inSub
			if b == telnetIAC && len(t.buffer) < maxSuboption {
				t.buffer = append(t.buffer, b)
			} else if b == telnetSE {
				t.state = plain
				if len(t.buffer) > 0 {
					err = sub(t.buffer[0], t.buffer[1:])
				}
			}
		}
		if err != nil {
			return data, err
		}
	}
	return data, nil
}
