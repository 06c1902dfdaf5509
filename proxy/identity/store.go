package identity

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Files in the state directory. Key and chain are one file so that a crash
// between two writes cannot leave a key beside another key's certificate.
const (
	svidFile  = "svid.pem"
	rootsFile = "roots.pem"
)

// maxFile bounds a state file.
const maxFile = 1 << 20

func sortServed(s []*served) {
	slices.SortFunc(s, func(a, b *served) int { return a.order - b.order })
}

// prepareDir makes the state directory, or takes away others' access to it.
func prepareDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("identity: state directory: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("identity: state directory: %w", err)
	}
	return nil
}

// writeAtomic replaces dir/name as a whole, mode 0600.
func writeAtomic(dir, name string, data []byte) (err error) {
	f, err := os.CreateTemp(dir, "."+name+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(dir, name))
}

// saveSVID writes key and chain.
func saveSVID(dir string, s *SVID) error {
	der, err := x509.MarshalPKCS8PrivateKey(s.Key)
	if err != nil {
		return fmt.Errorf("identity: encode key: %w", err)
	}
	data := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	data = append(data, encodeCertificates(s.Chain)...)
	if err := writeAtomic(dir, svidFile, data); err != nil {
		return fmt.Errorf("identity: save certificate: %w", err)
	}
	return nil
}

func saveRoots(dir string, roots []*x509.Certificate) error {
	if err := writeAtomic(dir, rootsFile, encodeCertificates(roots)); err != nil {
		return fmt.Errorf("identity: save roots: %w", err)
	}
	return nil
}

// loadFiles reads what the state directory has. Missing files are no error: all results are nil then.
func loadFiles(dir string) (key crypto.Signer, chain, roots []*x509.Certificate, err error) {
	data, err := readBounded(filepath.Join(dir, rootsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil, nil
	}
	if err != nil {
		return nil, nil, nil, err
	}
	if roots, err = ParseCertificates(data); err != nil {
		return nil, nil, nil, fmt.Errorf("%s: %w", rootsFile, err)
	}
	data, err = readBounded(filepath.Join(dir, svidFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, roots, nil
	}
	if err != nil {
		return nil, nil, nil, err
	}
	if key, chain, err = parseSVID(data); err != nil {
		return nil, nil, nil, fmt.Errorf("%s: %w", svidFile, err)
	}
	return key, chain, roots, nil
}

func parseSVID(data []byte) (crypto.Signer, []*x509.Certificate, error) {
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, nil, errors.New("does not begin with a PEM PRIVATE KEY")
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, nil, errors.New("private key cannot be parsed") // the cause could hold key material
	}
	signer, ok := k.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("private key of type %T cannot sign", k)
	}
	chain, err := ParseCertificates(rest)
	if err != nil {
		return nil, nil, err
	}
	return signer, chain, nil
}

func readBounded(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Size() > maxFile {
		return nil, fmt.Errorf("%s: %d bytes, at most %d", filepath.Base(path), st.Size(), maxFile)
	}
	return os.ReadFile(path)
}
